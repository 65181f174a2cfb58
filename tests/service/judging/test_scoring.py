"""Figures computed by running shipped files, against other libraries and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from compressors.batches import fetch
from compressors.graph import Graph
from compressors.lift import lift
from compressors.problem import Samples
from compressors.tasks import TASKS, noised
from deploy.bench import LocalBench
from service.judging.quality import AGREEMENT, RELATIVE_ERROR, Goal
from service.judging.scoring import FileScore, Scorer
from service.pipeline.shipping import ship
from tests.compressors.networks import lifted
from tests.compressors.samples import BatchedTensors

COUNT = 40


class Heads(nn.Module):
    """One score per class, and a vector that is no score."""

    def __init__(self, *, two: bool) -> None:
        super().__init__()
        self.scores, self.embeds = nn.Linear(6, 4), nn.Linear(6, 3) if two else None

    def forward(self, x: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        scores = self.scores(x)
        return scores if self.embeds is None else {"image_embeds": self.embeds(x), "logits": scores}


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.conv(sample) * (timestep.float() / 1000)[:, None, None, None]


def heads(seed: int, *, two: bool = False) -> Graph:
    torch.manual_seed(seed)
    return lifted(Heads(two=two), (6,))


def samples(targets: torch.Tensor | None = None) -> BatchedTensors:
    return BatchedTensors(torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(9)), targets)


def scored(folder: Path, task: str, original: Graph, other: Graph, data: Samples) -> tuple[FileScore, FileScore]:
    paths = [ship(graph, folder / f"{at}.onnx", data).artifact.path for at, graph in enumerate((original, other))]
    scorer = Scorer(original, paths[0], data, Goal(TASKS[task]), LocalBench())
    return scorer.score(paths[0]), scorer.score(paths[1])


def outputs(path: Path, *inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {each.name: values.numpy() for each, values in zip(session.get_inputs(), inputs, strict=True)}
    return session.run(None, feeds)


def test_several_labels_are_scored_by_mean_average_precision_of_the_file(tmp_path: Path) -> None:
    targets = (torch.rand(COUNT, 4, generator=torch.Generator().manual_seed(3)) > 0.5).float()
    data = samples(targets)
    for at, found in enumerate(scored(tmp_path, "multi_label", heads(0), heads(1), data)):
        (scores,) = outputs(tmp_path / f"{at}.onnx", data.inputs)
        assert found.quality is not None
        assert found.quality.value == pytest.approx(average_precision_score(targets.numpy(), scores, average="macro"))
        assert (found.quality.figure.name, found.quality.count) == ("mean average precision", COUNT)


def test_a_denoiser_is_scored_by_its_error_on_noise_that_is_always_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        Denoiser().eval(), (torch.randn(2, 3, 4, 4), torch.tensor([1, 2])), dynamic_shapes=({0: batch}, {0: batch})
    )
    graph = lift(program, "denoiser")
    data = noised(graph, BatchedTensors(torch.randn(COUNT, 3, 4, 4)))
    every = fetch(data, range(COUNT))
    for found in scored(tmp_path, "denoising", graph, graph, data):
        (predicted,) = outputs(tmp_path / "0.onnx", *every.inputs)
        assert found.quality is not None
        assert found.quality.value == pytest.approx(np.square(predicted - every.labels.numpy()).mean(), rel=1e-5)
        assert not found.quality.figure.higher_is_better


def test_without_a_task_a_file_is_scored_by_its_distance_from_the_original_over_all_outputs(tmp_path: Path) -> None:
    data = samples()
    first, second = scored(tmp_path, "none", heads(0, two=True), heads(1, two=True), data)
    wanted, got = (outputs(tmp_path / f"{at}.onnx", data.inputs) for at in (0, 1))
    by_hand = [
        np.square(mine - theirs).mean() / np.square(theirs - theirs.mean(0)).mean()
        for mine, theirs in zip(got, wanted, strict=True)
    ]
    assert first.quality is not None
    assert second.quality is not None
    assert (first.quality.figure, first.quality.value) == (RELATIVE_ERROR, 0.0)
    assert second.quality.value == pytest.approx(np.mean(by_hand), rel=1e-4)


def test_classes_without_labels_are_scored_by_decisions_that_are_the_original_s(tmp_path: Path) -> None:
    data = samples()
    first, second = scored(tmp_path, "classification", heads(0), heads(1), data)
    same = [outputs(tmp_path / f"{at}.onnx", data.inputs)[0].argmax(1) for at in (0, 1)]
    assert first.quality is not None
    assert second.quality is not None
    assert (first.quality.figure, first.quality.value) == (AGREEMENT, 1.0)
    assert second.quality.value == pytest.approx((same[0] == same[1]).mean())


def test_without_samples_there_is_no_score(tmp_path: Path) -> None:
    assert (
        Scorer(heads(0), tmp_path / "never-read.onnx", None, Goal(TASKS["none"]), LocalBench()).score(tmp_path)
        == FileScore()
    )
