from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from compressors.execute import Stream
from compressors.fit import FitConfig
from compressors.harm import ScreenConfig, missed, refitted, screen
from compressors.score import Reference
from compressors.table import Alternative, segment_cuts
from tests.compressors.networks import lifted
from tests.compressors.problems import problem_of, problem_with


def test_judging_stops_after_a_batch_when_that_is_enough():
    problem = problem_of("mobilenet", 0.5)
    cuts = [cut for segment in problem.analysis.segments for cut in segment_cuts(segment)][:3]
    alternatives = [Alternative(cut, 1.0, 1.0) for cut in cuts]
    reference = Reference.of(problem.graph, problem.selection, 32, 8)
    config = ScreenConfig(samples=32, batch=16)
    short = screen(problem.graph, alternatives, problem.calibration, reference, replace(config, enough=lambda: True))
    alone = screen(problem.graph, alternatives, problem.calibration, reference.first(8), config)
    assert {score.samples for score in short.values()} == {8}
    assert short == alone


def test_judging_in_bfloat16_says_nearly_the_same():
    problem = problem_of("mobilenet", 0.5)
    cuts = [cut for segment in problem.analysis.segments for cut in segment_cuts(segment)]
    alternatives = [Alternative(cut, 1.0, 1.0) for cut in cuts]
    exact = Reference.of(problem.graph, problem.selection, 32, 8)
    rough = exact.rough(problem.graph, "bfloat16")
    assert rough.precision == "bfloat16"
    wanted, found = (
        screen(problem.graph, alternatives, problem.calibration, each, ScreenConfig(samples=32, batch=16))
        for each in (exact, rough)
    )
    for step, score in found.items():
        assert score.divergence == pytest.approx(wanted[step].divergence, rel=0.1, abs=5e-3)
    assert any(found[step] != wanted[step] for step in found)


def test_fits_are_judged_by_the_weights_that_were_fitted_in_bfloat16_too():
    problem = problem_of("resnet-b", 0.5)
    exact = Reference.of(problem.graph, problem.selection, 32, 8)
    rough = exact.rough(problem.graph, "bfloat16")
    steps = [cut.step for segment in problem.analysis.segments for cut in segment_cuts(segment)]
    assert len(steps) > 4
    for step in steps:
        one, other = (
            refitted(problem.graph, [step], problem.calibration, each, FitConfig(samples=64), {}).divergence
            for each in (exact, rough)
        )
        assert other == pytest.approx(one, rel=0.1, abs=1e-3)


def stretches(network: str) -> tuple:
    problem = problem_of(network, 0.5)
    cuts = [cut for segment in problem.analysis.segments for cut in segment_cuts(segment)]
    return problem, [Alternative(cut, 1.0, 1.0) for cut in cuts]


def test_what_an_operator_misses_is_its_least_squares_error_on_samples_it_was_not_fitted_to():
    problem, alternatives = stretches("vgg")
    found = missed(problem.graph, alternatives, problem.calibration, ScreenConfig(batch=32, least_rows=10**6))
    assert found.keys() == {one.step for one in alternatives if one.step.kind == "regress"}
    pixelwise = [step for step in found if step.kernel == (1, 1) and step.stride == (1, 1)]
    assert pixelwise
    batches = [(problem.calibration.batch(range(at, at + 32))[0][0],) for at in (0, 32)]
    for step in pixelwise:
        stream = Stream(problem.graph.module, batches, {step.entry, step.exit})
        stream.advance(step.exit)
        (x, y), (held_x, held_y) = (
            [stream.at(batch)[name].double().movedim(1, -1) for name in (step.entry, step.exit)] for batch in (0, 1)
        )
        rows, held = (torch.cat([v, torch.ones_like(v[..., :1])], -1) for v in (x, held_x))
        solved = torch.linalg.lstsq(rows.flatten(0, -2), y.flatten(0, -2)).solution
        error = (held @ solved - held_y).square().sum() / (held_y - held_y.mean(0)).square().sum()
        assert found[step] == pytest.approx(min(1.0, float(error)), rel=0.02)


def test_an_operator_with_room_for_a_linear_stretch_misses_nothing():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)
    with torch.no_grad():
        layers[0].bias.fill_(100.0)
    graph = lifted(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 8, 8))
    problem = problem_with(graph, 0.5)
    cuts = [cut for segment in problem.analysis.segments for cut in segment_cuts(segment)]
    found = missed(graph, [Alternative(cut, 1.0, 1.0) for cut in cuts], problem.calibration, ScreenConfig(batch=32))
    assert found
    assert max(found.values()) < 1e-3


def test_what_can_not_be_compared_is_missed_whole():
    problem, alternatives = stretches("vgg")
    problem.calibration.inputs = [torch.zeros_like(each) for each in problem.calibration.inputs]
    found = missed(problem.graph, alternatives, problem.calibration, ScreenConfig(batch=32))
    assert set(found.values()) == {1.0}
