"""Closed-form fitting: what is linear is recovered, what is not gets closer, nothing else changes."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis import analyse
from compressors.calibrate import Moments, Rows
from compressors.execute import Stream
from compressors.fit import FitConfig, RegressionConfig, fit
from compressors.fit.points import evaluation_order, fit_points
from compressors.fit.regression import effective, fit_point, install
from compressors.graph import Graph
from compressors.plan import Step
from compressors.score import Reference
from compressors.surgery import apply
from tests.compressors.networks import graph_of, lifted, randomise
from tests.compressors.samples import BatchedTensors, random_samples


class NearlyLinear(nn.Module):
    """Its inner ReLU never clips, so the middle is linear: two 1x1 convolutions in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(cin, 6, 1) for cin in (3, 6, 6))
        nn.init.constant_(self.one.bias, 50.0)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = F.relu(self.two(F.relu(self.one(x))))
        return self.head(x.mean((2, 3)))


def step_of(graph: Graph, kind: str, *, number: int = 0, kernel: tuple[int, ...] = (3, 3)) -> Step:
    """Returns a cut of one position, from the analysis."""
    fitting = [
        segment
        for segment in analyse(graph).segments
        if segment.chain == "main" and (segment.removable if kind == "remove" else kernel in segment.kernels)
    ]
    segment = sorted(fitting, key=lambda found: found.end - found.start)[number]
    if kind == "remove":
        return Step("remove", segment.entry, segment.exit)
    return Step("regress", segment.entry, segment.exit, kernel, segment.stride)


def fitted(graph: Graph, steps: list[Step], config: FitConfig, count: int = 64) -> Graph:
    return fit(graph, apply(graph, steps), steps, random_samples(graph, count, 7), config).graph


def test_linear_stretch_is_recovered() -> None:
    graph = lifted(NearlyLinear(), (3, 5, 5))
    exact = RegressionConfig(ridges=(1e-12,))
    cut = fitted(graph, [Step("regress", "relu", "two", (1, 1), (1, 1))], FitConfig("none", regression=exact))
    fresh = graph.samples(3, seed=99)
    with torch.no_grad():
        torch.testing.assert_close(cut.module(*fresh), graph.module(*fresh), rtol=1e-4, atol=1e-4)


def test_input_graph_and_cut_are_not_changed() -> None:
    graph = graph_of("resnet-a")
    step = step_of(graph, "regress")
    cut = apply(graph, [step])
    before = [{key: value.clone() for key, value in g.module.state_dict().items()} for g in (graph, cut)]
    fit(graph, cut, [step], random_samples(graph, 16, 7), FitConfig())
    for kept, g in zip(before, (graph, cut), strict=True):
        assert all(torch.equal(value, kept[key]) for key, value in g.module.state_dict().items())


@pytest.mark.parametrize("name", ["resnet-a", "resnet-b", "mobilenet", "preact", "vgg", "vit"])
@pytest.mark.parametrize("kind", ["regress", "remove"])
def test_refit_brings_the_outputs_closer(name: str, kind: str) -> None:
    graph = graph_of(name)
    kernel = () if name == "vit" else (3, 3)
    try:
        step = step_of(graph, kind, kernel=kernel)
    except IndexError:
        pytest.skip(f"{name} has nothing to {kind}")
    fresh = random_samples(graph, 200, 99)
    errors = [output_error(graph, fitted(graph, [step], FitConfig(refit), 512), fresh) for refit in ("none", "all")]
    # A stretch that was linear already leaves nothing to repair but rounding.
    assert errors[1] < max(errors[0], 1e-6)


def output_error(graph: Graph, other: Graph, samples: torch.utils.data.Dataset) -> float:
    with torch.no_grad():
        wanted, found = (g.module(samples.inputs) for g in (graph, other))
    return float((wanted - found).square().mean() / wanted.var())


def test_new_operator_has_a_norm_that_passes_its_output_on() -> None:
    graph = graph_of("resnet-a")
    step = step_of(graph, "regress")
    samples = random_samples(graph, 64, 7)
    everything = RegressionConfig(least_rows=10**9)
    module = fit(graph, apply(graph, [step]), [step], samples, FitConfig("none", regression=everything)).graph.module
    conv = module.get_submodule(f"cut_{step.exit}.conv")
    norm = module.get_submodule(f"cut_{step.exit}.norm")
    stream = Stream(module, [(samples.inputs,)])
    name = next(node.name for node in module.graph.nodes if node.target == f"cut_{step.exit}.conv")
    stream.advance(name)
    y = stream.at(0)[name]
    with torch.no_grad():
        torch.testing.assert_close(norm(y), y, rtol=1e-4, atol=1e-4)
        # On the data it was fitted to, batch statistics are the running ones: training starts where fitting ended.
        norm.train()
        torch.testing.assert_close(norm(y), y, rtol=1e-3, atol=1e-3)
    assert float(conv.weight.detach().abs().sum()) > 0


def in_no_time(**config: object) -> RegressionConfig:
    return RegressionConfig(enough=lambda: True, **config)


def test_without_time_new_operators_are_fitted_and_nothing_is_refitted() -> None:
    graph = graph_of("resnet-a")
    step = step_of(graph, "regress")
    samples = random_samples(graph, 512, 7)
    cut = apply(graph, [step])
    found = fit(graph, cut, [step], samples, FitConfig("all", batch=64, regression=in_no_time()))
    fresh = random_samples(graph, 200, 99)
    alone = fit(graph, cut, [step], samples, FitConfig("none", batch=64)).graph
    assert [point.before for point in found.points] == [None]
    # Four times the error of a fit on all eight batches is far from the noise that an operator holds before.
    assert output_error(graph, found.graph, fresh) < 4 * output_error(graph, alone, fresh)
    assert output_error(graph, cut, fresh) > 4 * output_error(graph, alone, fresh)


def test_a_fit_without_time_reads_few_batches() -> None:
    graph = lifted(NearlyLinear(), (3, 5, 5))
    step = Step("regress", "relu", "two", (1, 1), (1, 1))
    first = random_samples(graph, 64, 7).inputs
    spoilt = torch.cat([first, torch.full((448, 3, 5, 5), torch.nan)])
    samples = BatchedTensors(spoilt)
    config = FitConfig("none", batch=32, regression=in_no_time(ridges=(1e-12,)))
    cut = fit(graph, apply(graph, [step]), [step], samples, config).graph
    with torch.no_grad():
        torch.testing.assert_close(cut.module(first), graph.module(first), rtol=1e-3, atol=1e-3)


def test_a_refit_that_was_cut_short_is_kept_only_where_it_helps() -> None:
    """What a batch of two faint images teaches is no good for the images of the second."""
    graph = graph_of("resnet-a")
    step = step_of(graph, "remove")
    cut = apply(graph, [step])
    samples = random_samples(graph, 64, 7)
    samples.inputs[:2] *= 0.01
    answers = iter([False, *[True] * 100])  # the refit is begun, and the time is over after its second batch
    config = FitConfig("last", batch=2, regression=RegressionConfig(enough=lambda: next(answers), ridges=(1e-12,)))
    found = fit(graph, cut, [step], samples, config)
    (point,) = found.points
    module = dict(found.graph.module.named_modules())[
        next(str(n.target) for n in found.graph.module.graph.nodes if n.name == point.operator)
    ]
    own = dict(cut.module.named_modules())[
        next(str(n.target) for n in cut.module.graph.nodes if n.name == point.operator)
    ]
    assert point.before is not None
    kept = torch.equal(module.weight, own.weight)
    assert kept == (point.error >= point.before)
    assert kept


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_installing_what_is_there_changes_nothing(bias: bool, groups: int) -> None:
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=bias, groups=groups)
    norm = randomise(nn.Sequential(nn.BatchNorm2d(6)))[0]
    with torch.no_grad():
        norm.weight[2] = 0.0  # a channel that is switched off
    x = torch.randn(20, 4, 8, 8)
    with torch.no_grad():
        before = norm(conv(x))
    rows = Rows(conv)
    everywhere = torch.arange(64)
    moments = Moments.of(rows.inputs(x, everywhere), rows.outputs(before, everywhere))
    install(conv, norm, effective(conv, norm), moments)
    with torch.no_grad():
        torch.testing.assert_close(norm(conv(x)), before, rtol=1e-4, atol=1e-4)


def test_keeping_and_recomputing_intermediate_tensors_give_the_same() -> None:
    graph = graph_of("resnet-b")
    step = step_of(graph, "regress")
    results = [fitted(graph, [step], FitConfig(batch=16, memory_bytes=limit)) for limit in (0, 2**30)]
    for one, two in itertools.pairwise(results):
        for key, value in one.module.state_dict().items():
            torch.testing.assert_close(value, two.module.state_dict()[key], rtol=0, atol=0)


def test_shortcut_written_after_the_branch_is_computed_before_its_operator() -> None:
    graph = graph_of("resnet-a")
    step = step_of(graph, "remove")
    cut = apply(graph, [step])
    points = fit_points(graph, cut, [step], refit=True)
    order = {node.name: at for at, node in enumerate(evaluation_order(cut, points))}
    through_sums = [point for point in points if point.other is not None]
    assert len(through_sums) >= 2
    assert all(order[point.other] < order[point.operator] for point in through_sums)
    assert sorted(order.values()) == list(range(len(cut.module.graph.nodes)))


def test_sums_are_fitted_as_sums_and_the_classifier_last() -> None:
    graph = graph_of("resnet-b")
    step = step_of(graph, "regress")
    points = fit_points(graph, apply(graph, [step]), [step], refit=True)
    assert points[0].new
    assert points[0].target == step.exit
    assert points[-1].target == "head"
    assert {point.target for point in points if point.other} <= {node.name for node in graph.module.graph.nodes}
    # A projection shortcut: one of the two operators in front of a sum is fitted by itself, the other to the sum.
    alone = [point for point in points if "down" in point.operator or "conv2" in point.operator]
    assert {point.other is None for point in alone} == {True, False}


def test_shared_operator_is_left_alone() -> None:
    graph = graph_of("shared")
    step = Step("regress", next(iter(graph.module.graph.nodes)).name, "stem", (3, 3), (1, 1))
    points = fit_points(graph, apply(graph, [step]), [step], refit=True)
    assert not [point for point in points if point.operator.startswith("body")]


def test_one_sided_fit_lowers_what_the_relu_lets_through() -> None:
    graph = graph_of("vgg")
    step = step_of(graph, "regress", number=0)
    samples = random_samples(graph, 128, 7)
    errors = []
    for rounds in (0, 10):
        cut = apply(graph, [step])
        (point,) = fit_points(graph, cut, [step], refit=False)
        assert point.rectified
        batches = [(samples.inputs,)]
        streams = Stream(graph.module, batches, [step.exit]), Stream(cut.module, batches)
        config = RegressionConfig(ridges=(1e-6,), least_rows=10**9, one_sided_rounds=rounds)
        fit_point(cut.module, point, streams, 1, config)
        streams[1].advance(point.norm)
        difference = F.relu(streams[0].at(0)[step.exit]) - F.relu(streams[1].at(0)[point.norm])
        errors.append(float(difference.square().mean()))
    assert errors[1] < errors[0]


def test_depthwise_operators_are_refitted_group_by_group() -> None:
    graph = graph_of("mobilenet")
    step = step_of(graph, "regress")
    result = fit(graph, apply(graph, [step]), [step], random_samples(graph, 128, 7), FitConfig())
    refitted = {report.operator for report in result.points}
    modules = {node.name: str(node.target) for node in graph.module.graph.nodes if node.op == "call_module"}
    depthwise = {
        name for name, target in modules.items() if getattr(graph.module.get_submodule(target), "groups", 1) > 1
    }
    assert depthwise & refitted


def test_last_refits_fewer_operators_than_all_and_none_only_new_ones() -> None:
    graph = graph_of("resnet-a")
    step = step_of(graph, "regress")
    samples = random_samples(graph, 32, 7)
    counts = [
        len(fit(graph, apply(graph, [step]), [step], samples, FitConfig(refit)).points)
        for refit in ("none", "last", "all")
    ]
    assert counts[0] == 1 < counts[1] < counts[2]


def test_heartbeat_can_stop_the_work() -> None:
    graph = graph_of("resnet-a")
    step = step_of(graph, "regress")

    def stop(done: float) -> None:
        if done > 0:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        fit(graph, apply(graph, [step]), [step], random_samples(graph, 16, 7), FitConfig(), stop)


def test_more_refitting_lowers_the_divergence() -> None:
    graph = graph_of("resnet-b")
    step = step_of(graph, "remove")
    reference = Reference.of(graph, random_samples(graph, 200, 99))
    none, every = (reference.score(fitted(graph, [step], FitConfig(refit), 256).module) for refit in ("none", "all"))
    assert every.divergence < none.divergence / 2
