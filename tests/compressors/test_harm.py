from __future__ import annotations

from dataclasses import replace

from compressors.harm import ScreenConfig, screen
from compressors.score import Reference
from compressors.table import Alternative, segment_cuts
from tests.compressors.problems import problem_of


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
