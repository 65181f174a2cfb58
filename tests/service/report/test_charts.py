from __future__ import annotations

import re

import numpy as np
import pytest

from service.report.alignment import align
from service.report.charts import at_percentile, curves, distributions
from service.report.front import best_measured, front
from service.report.profile import profile
from service.report.schema import BudgetReport, CandidateReport
from service.report.tiles import accuracy_tile, latency_tile, speedup_tile
from tests.service.report import made, networks


def coordinates(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


def test_histograms_hold_all_runs_that_are_in_range():
    report = made.report()
    drawn = distributions(report)
    assert drawn is not None
    for hump, network in zip(drawn.humps, (report.baseline, report.result), strict=True):
        tops = coordinates(hump.path)[2::2]
        shares = [(drawn.frame.y.start - y) / (drawn.frame.y.start - drawn.frame.y.end) for _, y in tops]
        total = sum(shares) * drawn.frame.y.high / 100
        inside = np.mean(np.array(network.latency.samples_ms) <= drawn.frame.x.high)
        assert total == pytest.approx(inside, abs=0.02)


def test_lines_stand_where_the_values_are():
    report = made.report()
    drawn = distributions(report)
    assert drawn is not None
    places = {rule.style: rule.at for rule in drawn.rules}
    assert places == {
        "budget": drawn.frame.x(report.budget.milliseconds),
        "base": drawn.frame.x(report.baseline.latency.p50),
        "result": drawn.frame.x(report.result.latency.p50),
    }


def test_runs_outside_the_drawing_are_owned_up_to():
    drawn = distributions(made.report())
    assert drawn is not None
    assert any("5 of 400 runs of the original lie further right" in note for note in drawn.left_out)


def test_a_budget_far_off_does_not_squeeze_the_rest():
    report = made.report(budget=BudgetReport(asked="99ms", milliseconds=99, percentile=50, batch=1, floor_ms=None))
    drawn = distributions(report)
    assert drawn is not None
    assert drawn.frame.x.high < 3
    assert any("lies outside" in note for note in drawn.left_out)


def test_the_original_alone_is_drawn_once():
    drawn = distributions(made.unimproved())
    assert drawn is not None
    assert [hump.style for hump in drawn.humps] == ["base"]


def test_without_single_times_there_is_no_drawing():
    report = made.report()
    empty = report.result.latency.model_copy(update={"samples_ms": ()})
    assert distributions(made.report(result=report.result.model_copy(update={"latency": empty}))) is None


def test_other_percentiles_are_read_off_the_times():
    times = networks.latency(1.0, 0)
    assert at_percentile(times, 95) == times.p95
    assert at_percentile(times, 75) == pytest.approx(float(np.percentile(times.samples_ms, 75)))


def test_the_front_tells_kinds_of_points_apart():
    report = made.report()
    drawn = front(report)
    assert drawn is not None
    assert drawn.axis == "accuracy"
    assert sum(point.hollow for point in drawn.points) == 2
    chosen = [point for point in drawn.points if point.style == "chosen"]
    assert [point.shape for point in chosen] == ["triangle"]
    validated = [point for point in drawn.points if point.shape == "diamond"]
    assert [point.style for point in validated] == ["base", "result"]
    for point, network in zip(validated, (report.baseline, report.result), strict=True):
        assert network.accuracy is not None
        assert point.y == drawn.frame.y(100 * network.accuracy.top1)
        assert (point.low, point.high) == (
            drawn.frame.y(100 * network.accuracy.low),
            drawn.frame.y(100 * network.accuracy.high),
        )


def test_the_front_of_unlabelled_samples_shows_agreement():
    drawn = front(made.unlabelled())
    assert drawn is not None
    assert drawn.axis == "agreement"
    assert [point.y for point in drawn.points if point.style == "base"] == [drawn.frame.y(100)]


def test_the_front_of_divergences_has_better_above():
    without = {"selection_accuracy": None, "selection_agreement": None}
    tried = tuple(c.model_copy(update=without) for c in made.candidates())
    drawn = front(made.report(candidates=tried))
    assert drawn is not None
    assert drawn.axis == "divergence"
    assert drawn.frame.y(0.01) < drawn.frame.y(0.2)


def test_a_ruined_network_does_not_squeeze_the_rest():
    ruined = made.candidates()[0].model_copy(update={"selection_accuracy": 0.1})
    drawn = front(made.report(candidates=(*made.candidates(), ruined)))
    assert drawn is not None
    assert drawn.beyond == 1
    assert drawn.frame.y.low > 60


def test_no_candidates_no_front():
    assert front(made.bare()) is None


def test_the_best_measured_are_what_no_other_beats():
    tried = [c for c in made.candidates() if c.latency_ms is not None]

    def beaten(candidate: CandidateReport) -> bool:
        return any(
            (other.latency_ms or 0) <= (candidate.latency_ms or 0)
            and (other.selection_accuracy or 0) >= (candidate.selection_accuracy or 0)
            and other is not candidate
            for other in tried
        )

    assert {c.label for c in best_measured(made.candidates())} == {c.label for c in tried if not beaten(c)}


def test_curves_follow_the_history():
    accuracy, divergence, loss = curves(made.tuning())
    assert [mark.kept for mark in accuracy.marks] == [True, True, False, True, True]
    assert accuracy.marks[-1].y < accuracy.marks[0].y
    assert divergence.marks[-1].y > divergence.marks[0].y
    assert len(loss.marks) == 5


def test_a_diverged_loss_is_left_out():
    history = made.tuning().history
    bad = (*history, history[-1].model_copy(update={"loss": float("nan")}))
    loss = curves(made.tuning().model_copy(update={"history": bad}))[-1]
    assert len(loss.marks) == 5


def test_no_history_no_curves():
    assert curves(made.tuning().model_copy(update={"history": ()})) == []


def test_bars_are_as_high_as_the_work():
    report = made.report()
    drawn = profile(align(report.baseline.layers, report.result.layers))
    assert drawn is not None
    heights = {bar.title.split(" ")[0]: bar.height for bar in drawn.bars if bar.style == "base"}
    assert heights["layer1.0.conv1"] == drawn.half
    assert heights["conv1"] == pytest.approx(drawn.half * 442_368 / 2_359_296, abs=0.1)
    assert drawn.styles == {"base", "result", "cut", "new"}


def test_a_network_without_work_has_no_bars():
    assert profile([]) is None


def test_tiles_show_what_they_say():
    report = made.report()
    latency = latency_tile(report)
    assert latency.bars[0].width / latency.bars[1].width == pytest.approx(
        report.baseline.latency.p50 / report.result.latency.p50, rel=1e-2
    )
    assert latency.bars[1].width < latency.lines[0].at < latency.bars[0].width
    (speedup,) = speedup_tile(report).intervals
    assert speedup.low < speedup.at < speedup.high
    accuracy = accuracy_tile(report)
    assert accuracy is not None
    assert [interval.style for interval in accuracy.intervals] == ["base", "result"]
    assert accuracy.lines[0].at < accuracy.intervals[1].low
    assert accuracy_tile(made.unlabelled()) is None
