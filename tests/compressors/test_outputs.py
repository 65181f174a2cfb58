"""Networks with several outputs: which one is judged, and how the others count."""

import pytest
import torch
from torch import nn

from compressors.analysis import analyse
from compressors.score import Reference
from compressors.tasks import judged_output
from compressors.tune import TuneConfig, tune
from tests.compressors.networks import lifted
from tests.compressors.problems import problem_of, started
from tests.compressors.samples import BatchedTensors, CountingTimer, Recorder


class Two(nn.Module):
    """A body of residual blocks; a box, and scores of five classes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)) for _ in range(3)
        )
        self.box, self.head = nn.Linear(8, 4), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        for block in self.blocks:
            x = (x + block(x)).relu()
        pooled = x.mean((2, 3))
        return {"pred_boxes": self.box(pooled), "logits": self.head(pooled)}


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return lifted(Two(), (3, 8, 8))


def samples(graph, count, seed):
    inputs = graph.inputs[0].random(count, seed)
    with torch.no_grad():
        return BatchedTensors(inputs, graph.module(inputs)[1].argmax(1))


def test_the_output_named_as_scores_is_judged_wherever_it_is(graph):
    assert [spec.name for spec in graph.outputs] == ["pred_boxes", "logits"]
    assert judged_output(graph) == 1
    assert Reference.of(graph, samples(graph, 6, 1)).score(graph.module).accuracy == 1.0


def test_divergence_is_the_mean_of_every_output_s_own(graph):
    reference = Reference.of(graph, samples(graph, 20, 1))
    boxes, scores = reference.outputs
    moved = boxes + 0.1 * boxes.std(0, correction=0).mean()
    found = reference.compare([moved, scores])
    spread = (boxes - boxes.mean(0)).square().mean()
    assert found.divergence == pytest.approx(float((moved - boxes).square().mean() / spread) / 2, rel=1e-4)
    assert found.accuracy == 1.0


def problem(graph, share):
    (baseline,) = CountingTimer().networks([(graph.module, graph.inputs)])
    return problem_of(
        "resnet-a",
        share,
        graph=graph,
        analysis=analyse(graph),
        calibration=samples(graph, 64, 1),
        selection=samples(graph, 32, 2),
        baseline_seconds=baseline,
        budget_seconds=share * baseline,
    )


def test_a_search_cuts_what_both_outputs_share_and_training_repairs_both(graph):
    given = problem(graph, 0.8)
    best = started(given).candidates(given.budget_seconds)[0]
    assert best.plan.steps
    assert best.seconds is not None
    assert best.seconds <= given.budget_seconds
    config = TuneConfig(epochs=4, batch=16, learning_rates=(1e-2,), precision="float32", device="cpu", augment=False)
    tuned = tune(graph, best.graph, given.calibration, given.selection, config, Recorder())
    assert [len(each) for each in tuned.graph.module(given.calibration.inputs[:2])] == [2, 2]
    assert not tuned.before.better_than(tuned.after)


def test_training_moves_the_output_without_targets_towards_the_original_s(graph):
    start = graph.copied()
    with torch.no_grad():
        start.module.get_submodule("box").weight.mul_(0.5)
    given = problem(graph, 0.8)
    config = TuneConfig(epochs=8, batch=16, learning_rates=(1e-4,), precision="float32", device="cpu", augment=False)
    tuned = tune(graph, start, given.calibration, given.selection, config, Recorder())
    assert min(entry.score.divergence for entry in tuned.history) < 0.5 * tuned.before.divergence


@pytest.mark.parametrize("name", ["tlc", "layer_folding"])
def test_other_strategies_take_several_outputs_too(graph, name):
    given = problem(graph, 0.9)
    candidates = started(given, name).candidates(given.budget_seconds)
    assert candidates
    assert all(len(one.graph.module(given.calibration.inputs[:2])) == 2 for one in candidates)
