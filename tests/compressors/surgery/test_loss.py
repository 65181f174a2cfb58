import pytest
import torch
from torch import nn

from compressors.analysis import analyse
from compressors.analysis.regions import merge_space
from compressors.plan import Step
from compressors.surgery import apply, merge_step, step_errors
from tests.compressors.networks import graph_of, lifted


def batches(graph, count=2):
    return [graph.samples(4, seed) for seed in range(count)]


def removable(graph):
    return next(s for s in analyse(graph).segments if s.removable)


def test_exact_merge_costs_nothing():
    graph = lifted(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 1)), (3, 8, 8))
    region = next(r for r in merge_space(graph).regions if len(r.operators) == 2)
    step = merge_step(region, region.options[-1])
    (error,) = step_errors(graph, apply(graph, [step]), [step], batches(graph))
    assert error < 1e-10


def test_zeros_cost_everything():
    graph = graph_of("resnet-a")
    segment = next(s for s in analyse(graph).segments if s.kernels)
    step = Step("regress", segment.entry, segment.exit, segment.kernels[0], segment.stride)
    assert step_errors(graph, apply(graph, [step]), [step], batches(graph)) == (pytest.approx(1.0),)


def test_removal_costs_what_the_stretch_did():
    graph = graph_of("resnet-a")
    segment = removable(graph)
    step = Step("remove", segment.entry, segment.exit)
    (error,) = step_errors(graph, apply(graph, [step]), [step], batches(graph, 1))
    values = {}

    class Record(torch.fx.Interpreter):
        def run_node(self, n):
            values[n.name] = super().run_node(n)
            return values[n.name]

    with torch.no_grad():
        Record(graph.module).run(*graph.samples(4, 0))
    y, x = values[segment.exit], values[segment.entry]
    assert error == pytest.approx(float((x - y).square().sum() / y.square().sum()), rel=1e-5)


def test_errors_of_other_cuts_do_not_count():
    graph = graph_of("resnet-a")
    first, second = [s for s in analyse(graph).segments if s.removable and s.chain == "main" and s.end == s.start + 1][
        :2
    ]
    steps = [Step("remove", s.entry, s.exit) for s in (first, second)]
    both = step_errors(graph, apply(graph, steps), steps, batches(graph))
    alone = [step_errors(graph, apply(graph, [step]), [step], batches(graph))[0] for step in steps]
    assert both == pytest.approx(alone)


def test_no_steps_have_no_errors():
    graph = graph_of("resnet-a")
    assert step_errors(graph, graph, [], batches(graph)) == ()
