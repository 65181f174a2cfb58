"""Fine-tuning of networks that are no image classifiers, or have no labels."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from compressors.graph import Graph, TensorSpec
from compressors.problem import Score
from compressors.sources import ModelSource, load
from compressors.tune import TuneConfig, tune
from compressors.tune.features import Features, difference
from tests.compressors.networks import graph_of, lifted
from tests.compressors.samples import BatchedTensors, Recorder, random_samples

QUICK = TuneConfig(
    epochs=4.0, batch=16, learning_rates=(0.02,), augment=False, device="cpu", precision="float32", evaluations=2
)


def damaged(graph: Graph, target: str) -> Graph:
    copy = graph.copied()
    with torch.no_grad():
        weight = copy.module.get_parameter(target)
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)) * weight.std())
    return copy


def test_several_labels_train_and_are_chosen_by_average_precision() -> None:
    graph = graph_of("resnet-a")
    inputs = graph.inputs[0].random(128, 1)
    with torch.no_grad():
        targets = (graph.module(inputs) > 0).float()
    data = BatchedTensors(inputs, targets)
    seen = Recorder()
    tuned = tune(graph, damaged(graph, "head.weight"), data, data, QUICK, seen)
    assert tuned.task == "multi_label"
    assert tuned.after.metric_name == "mean average precision"
    assert tuned.after.better_than(tuned.before)
    assert "holdout_mean_average_precision" in (seen.calls[-1][2] or {})
    mixed = replace(QUICK, mixup=0.5, erasing=0.5, augment=True, distillation=0.5)
    assert tune(graph, damaged(graph, "head.weight"), data, data, mixed, seen).history


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, x):
        return self.two(torch.relu(self.one(x)))


def test_outputs_that_are_no_class_scores_are_regressed_on_the_original() -> None:
    graph = replace(lifted(Embedder(), (6,)), outputs=(TensorSpec("text_embeds", (4,)),))
    data = BatchedTensors(torch.randn(128, 6))
    tuned = tune(graph, damaged(graph, "two.weight"), data, None, QUICK, Recorder())
    assert tuned.task == "none"
    assert tuned.after.divergence < 0.5 * tuned.before.divergence
    assert (tuned.after.metric, tuned.after.accuracy, tuned.after.samples) == (None, None, 26)
    assert tuned.after.agreement > tuned.before.agreement


def test_mixed_images_with_labels_train() -> None:
    graph = graph_of("resnet-a")
    data = random_samples(graph, 64, 1, labelled=True)
    settings = replace(QUICK, mixup=0.4, erasing=0.5, augment=True, label_smoothing=0.1, epochs=2.0)
    tuned = tune(graph, damaged(graph, "head.weight"), data, data, settings, Recorder())
    assert tuned.after.better_than(tuned.before)


class Denoiser(nn.Module):
    """Predicts the noise from the noisy image and how much of it there is."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(1, 8)
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, sample, timestep):
        here = self.time(timestep.float()[:, None] / 1000)[:, :, None, None]
        return self.two(torch.relu(self.one(sample) + here)) + sample


@pytest.fixture(scope="module")
def denoiser() -> Graph:
    torch.manual_seed(0)
    sample, timestep = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    batch = torch.export.Dim.DYNAMIC
    from compressors.lift import lift

    program = torch.export.export(Denoiser().eval(), (sample, timestep), dynamic_shapes=({0: batch}, {0: batch}))
    return lift(program, "denoiser")


def test_denoiser_trains_on_clean_images_and_is_chosen_by_the_error_of_its_noise(denoiser: Graph) -> None:
    images = BatchedTensors(torch.rand(64, 3, 8, 8) * 2 - 1)
    seen = Recorder()
    tuned = tune(denoiser, damaged(denoiser, "two.weight"), images, images, replace(QUICK, augment=True), seen)
    assert tuned.task == "denoising"
    assert not tuned.after.higher_is_better
    assert tuned.before.metric is not None
    assert tuned.after.metric < tuned.before.metric
    assert "holdout_noise_prediction_error" in (seen.calls[-1][2] or {})
    again = tune(denoiser, damaged(denoiser, "two.weight"), images, images, replace(QUICK, augment=True), seen)
    assert again.after == tuned.after


class Tokens(Dataset):
    """Sentences of which the last tokens are padding; the label is whether token 1 occurs."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.ids = torch.randint(2, 50, (count, 12), generator=generator)
        self.mask = (torch.arange(12) < torch.randint(4, 13, (count, 1), generator=generator)).long()
        self.labels = torch.randint(0, 2, (count,), generator=generator)
        self.ids[self.labels == 1, 2] = 1

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[tuple[torch.Tensor, ...], int]:
        return (self.ids[index], self.mask[index], torch.zeros_like(self.mask[index])), int(self.labels[index])


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Graph:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )
    place = tmp_path_factory.mktemp("models") / "bert"
    transformers.BertForSequenceClassification(config).save_pretrained(place)
    return load(ModelSource("folder", path=place, sample_shape=(12,)))


def test_text_classifier_trains_on_tokens_and_ignores_padding(bert: Graph) -> None:
    assert [spec.name for spec in bert.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    settings = replace(QUICK, learning_rates=None, trial_steps=2, augment=True, distillation=0.0, features=0.0)
    data = Tokens(160, 1)
    tuned = tune(bert, bert, data, None, replace(settings, learning_rates=(0.01,), epochs=6.0), Recorder())
    assert (tuned.task, tuned.optimizer) == ("classification", "adamw")
    assert tuned.after.accuracy is not None
    assert tuned.after.accuracy >= (tuned.before.accuracy or 0)
    start = damaged(bert, next(name for name, _ in bert.module.named_parameters() if "classifier.weight" in name))
    distilled = tune(bert, start, data, data, replace(settings, distillation=1.0, features=1.0), Recorder())
    assert distilled.after.divergence < distilled.before.divergence


def test_padding_is_left_out_of_the_features() -> None:
    teacher, mask = torch.randn(3, 6, 4), torch.arange(6) < torch.tensor([[6], [3], [1]])
    student = teacher.clone()
    student[~mask] += 100
    assert difference(Features((student,)), Features((teacher,)), mask) == 0
    assert difference(Features((student,)), Features((teacher,))) > 1
    shifted = teacher + 0.5
    expected = 0.25 / teacher[mask].var(correction=0)
    torch.testing.assert_close(difference(Features((shifted,)), Features((teacher,)), mask), expected)
    image = torch.randn(3, 6, 4, 4)
    assert difference(Features((image + 1,)), Features((image,)), mask) > 0


def test_score_of_the_start_is_never_lost(denoiser: Graph) -> None:
    images = BatchedTensors(torch.rand(32, 3, 8, 8))
    tuned = tune(denoiser, denoiser, images, images, replace(QUICK, learning_rates=(1e3,), clip=0.0), Recorder())
    assert isinstance(tuned.before, Score)
    assert tuned.after == tuned.before
