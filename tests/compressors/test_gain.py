"""Gain and shift of norms behind merges: least squares, in fits and in judging."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressors.analysis import analyse
from compressors.analysis.regions import merge_space
from compressors.fit import FitConfig, RegressionConfig, fit
from compressors.fit.gain import fit_gain
from compressors.graph import Graph
from compressors.harm import ScreenConfig, screen
from compressors.plan import Step
from compressors.score import Reference
from compressors.strategies.norm_back import with_norms
from compressors.surgery import apply
from compressors.table import Alternative, Cut, measure_table, region_cuts
from tests.compressors.denoisers import Pairs, denoiser
from tests.compressors.problems import problem_of


def pairs(count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [tuple(torch.randn(2, 5, 4, 6, 6, generator=generator).unbind()) for _ in range(count)]


def test_gain_and_shift_are_least_squares() -> None:
    norm, seen = nn.GroupNorm(2, 4), pairs()
    error = fit_gain(norm, seen)
    given = torch.cat([F.group_norm(x.double(), 2) for x, _ in seen]).transpose(0, 1).flatten(1)
    wanted = torch.cat([y.double() for _, y in seen]).transpose(0, 1).flatten(1)
    left = 0.0
    for channel, (x, y) in enumerate(zip(given, wanted, strict=True)):
        found = torch.linalg.lstsq(torch.stack([x, torch.ones_like(x)], 1), y[:, None])
        assert (norm.weight[channel].item(), norm.bias[channel].item()) == pytest.approx(
            found.solution.flatten().tolist(), abs=1e-5
        )
        left += float((found.solution[0] * x + found.solution[1] - y).square().mean())
    assert error == pytest.approx(left / float(wanted.var(1, correction=0).sum()), rel=1e-4)


def test_what_a_norm_gave_is_recovered() -> None:
    given, norm = nn.GroupNorm(2, 4), nn.GroupNorm(2, 4)
    nn.init.uniform_(given.weight, 0.5, 1.5)
    nn.init.normal_(given.bias)
    with torch.no_grad():
        assert fit_gain(norm, [(x, given(x)) for x, _ in pairs()]) < 1e-10
    assert torch.allclose(norm.weight, given.weight, atol=1e-5)
    assert torch.allclose(norm.bias, given.bias, atol=1e-5)


def cut_of(graph: Graph, *, norm: bool = True) -> Cut:
    (region,) = (r for r in merge_space(graph).regions if r.exit == "first_conv2" and r.norms)
    cuts = with_norms(region, region_cuts(region))
    return next(cut for cut in cuts if bool(cut.step.norm) == norm and not cut.step.pruned)


def samples(graph: Graph, seed: int = 1) -> Pairs:
    return Pairs(graph, 32, seed)


def fitted(graph: Graph, step: Step, refit: str = "none", enough: bool = False) -> Graph:
    config = FitConfig(refit, 32, 8, regression=RegressionConfig(enough=lambda: enough))
    return fit(graph, apply(graph, [step]), [step], samples(graph), config).graph


def divergence(graph: Graph, other: Graph) -> float:
    return Reference.of(graph, samples(graph, 2), 32, 8).score(other.module).divergence


def test_a_fit_brings_the_norm_closer_and_leaves_the_merge() -> None:
    graph = denoiser()
    step = cut_of(graph).step
    fresh, close = apply(graph, [step]), fitted(graph, step)
    assert divergence(graph, close) < divergence(graph, fresh)
    before = fresh.module.state_dict()
    changed = {key for key, value in close.module.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"cut_first_conv2.norm.weight", "cut_first_conv2.norm.bias"}


def test_a_norm_is_fitted_even_when_the_time_is_up_and_before_what_follows() -> None:
    graph = denoiser()
    step = cut_of(graph).step
    report = fit(graph, apply(graph, [step]), [step], samples(graph), FitConfig("all", 32, 8)).points
    assert report[0].operator == "cut_first_conv2_norm"
    hurried = fitted(graph, step, enough=True)
    norm = hurried.module.get_submodule("cut_first_conv2.norm")
    assert not torch.equal(norm.weight, torch.ones_like(norm.weight))


def test_judging_a_merge_with_a_norm_is_judging_the_network_that_it_gives() -> None:
    graph = denoiser()
    cut = cut_of(graph)
    reference = Reference.of(graph, samples(graph, 2), 32, 8)
    config = ScreenConfig(samples=32, batch=8)
    judged = screen(graph, [Alternative(cut, 1.0, 1.0)], samples(graph), reference, config)
    wanted = reference.score(fitted(graph, cut.step).module)
    assert judged[cut.step].divergence == pytest.approx(wanted.divergence, rel=1e-4)


def test_the_table_counts_the_norm() -> None:
    graph = denoiser()
    problem = problem_of("resnet-a", 0.5)
    cuts = [cut_of(graph, norm=norm) for norm in (False, True)]
    table = measure_table(replace(problem, graph=graph, analysis=analyse(graph)), cuts)
    seconds = {bool(one.step.norm): one.seconds for one in table.alternatives}
    assert seconds[True] == pytest.approx(seconds[False] + 1e-6)
