"""Scores against their definitions."""

import math
from dataclasses import replace

import pytest
import torch

from compressors.problem import Score
from compressors.score import Reference, score
from compressors.tasks import TASKS
from tests.compressors.networks import graph_of
from tests.compressors.samples import Tensors, random_samples


def test_original_compared_with_itself_is_perfect() -> None:
    graph = graph_of("resnet-a")
    found = score(graph, graph, random_samples(graph, 20, 1, labelled=True))
    assert (found.divergence, found.agreement, found.accuracy, found.samples) == (0.0, 1.0, 1.0, 20)


def test_divergence_agreement_and_accuracy_by_hand() -> None:
    reference = Reference(
        Tensors(torch.zeros(2, 1)),
        (torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log(),),
        torch.tensor([1, 1]),
        batch=2,
    )
    found = reference.compare([torch.tensor([[0.75, 0.25], [0.2, 0.8]]).log()])
    first = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    second = 0.9 * math.log(0.9 / 0.2) + 0.1 * math.log(0.1 / 0.8)
    assert found.divergence == pytest.approx((first + second) / 2, rel=1e-5)
    assert found.agreement == 0.5
    assert found.accuracy == 0.5


def test_batches_and_single_samples_agree() -> None:
    graph = graph_of("mobilenet")
    other = replace(graph.copied(), name="other")
    with torch.no_grad():
        other.module.get_submodule("head").weight.mul_(1.5)
    batched = random_samples(graph, 13, 2, labelled=True)
    single = Tensors(batched.inputs, batched.labels)
    one, two = (Reference.of(graph, data, batch=5).score(other.module) for data in (batched, single))
    assert one == two
    assert one.divergence > 0


def test_without_labels_there_is_no_accuracy() -> None:
    graph = graph_of("resnet-a")
    assert score(graph, graph, random_samples(graph, 4, 1)).accuracy is None


def test_limit_takes_the_first_samples() -> None:
    graph = graph_of("resnet-a")
    assert score(graph, graph, random_samples(graph, 10, 1), limit=3).samples == 3


def test_scores_that_are_not_finite_agree_with_nothing() -> None:
    graph = graph_of("resnet-a")
    samples = random_samples(graph, 8, 1, labelled=True)
    reference = Reference.of(graph, samples)
    with torch.no_grad():
        scores = graph.module(samples.inputs)
    scores[0], scores[1, 0] = float("nan"), float("inf")
    found = reference.compare([scores])
    assert found.divergence == float("inf")
    assert found.agreement == found.accuracy == 6 / 8


def test_several_labels_are_judged_by_average_precision() -> None:
    graph = graph_of("resnet-a")
    inputs = graph.inputs[0].random(16, 1)
    with torch.no_grad():
        targets = (graph.module(inputs) > 0).float()
    found = score(graph, graph, Tensors(inputs, targets))
    assert found.accuracy is None
    assert found.metric == 1.0
    assert found.metric_name == "mean average precision"


def test_a_named_task_overrides_what_the_outputs_look_like() -> None:
    graph = graph_of("resnet-a")
    found = Reference.of(graph, random_samples(graph, 8, 1, labelled=True), task="none").score(graph.module)
    assert (found.metric, found.accuracy, found.divergence) == (None, None, 0.0)


def test_better_is_by_the_figure_of_merit_whichever_way_is_up() -> None:
    high, low = Score(0.2, 0.5, None, 8, metric=0.9), Score(0.1, 0.5, None, 8, metric=0.8)
    assert high.better_than(low)
    low_error, high_error = (Score(0.2, 0.5, None, 8, metric=m, higher_is_better=False) for m in (0.8, 0.9))
    assert low_error.better_than(high_error)
    assert Score(0.1, 0.5, None, 8).better_than(high)
    assert not high.better_than(high)


def test_padding_does_not_count() -> None:
    outputs = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    reference = Reference(Tensors(torch.zeros(2, 1)), (outputs,), torch.tensor([-1, -1]), 2, TASKS["none"], mask=mask)
    disturbed = outputs + (~mask)[:, :, None] * 100
    assert reference.compare([disturbed]).divergence == 0.0
    assert reference.compare([outputs + mask[:, :, None]]).divergence > 0


def test_candidates_are_scored_in_the_precision_that_the_reference_is_for() -> None:
    graph = graph_of("resnet-a")
    exact = Reference.of(graph, random_samples(graph, 20, 1, labelled=True))
    rough = exact.rough(graph, "bfloat16")
    assert exact.score(graph.module).divergence == 0
    assert 0 < rough.score(graph.module).divergence < 1e-3
    assert rough.outputs is exact.outputs
    assert exact.rough(graph, "float32") is exact


def test_a_network_that_loses_itself_in_a_precision_is_scored_in_float32() -> None:
    graph = graph_of("resnet-a").copied()
    with torch.no_grad():
        graph.module.get_submodule("head").bias += torch.linspace(3e3, 3e3 + 1, 5)
    exact = Reference.of(graph, random_samples(graph, 20, 1, labelled=True))
    assert exact.rough(graph, "bfloat16") is exact


def test_a_network_that_can_not_be_run_in_a_precision_is_scored_in_float32() -> None:
    graph = graph_of("resnet-a").copied()
    head = next(node for node in graph.module.graph.nodes if node.target == "head")
    (output,) = graph.module.graph.find_nodes(op="output")
    with graph.module.graph.inserting_before(output):
        single = graph.module.graph.call_method("float", (head,))
        output.args = (graph.module.graph.call_function(torch.lerp, (head, single, 0.5)),)
    graph.module.recompile()
    exact = Reference.of(graph, random_samples(graph, 20, 1, labelled=False))
    with pytest.raises(RuntimeError, match="dtype"), torch.autocast("cpu", torch.bfloat16):
        graph.module(*graph.samples(2))
    assert exact.rough(graph, "bfloat16") is exact
