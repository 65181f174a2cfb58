"""Whether a report's figures hold: its claims against a measurement that was really taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.evaluate import Accuracy, wilson
from deploy.measure.settings import TimingSettings
from deploy.remeasure import Remeasurement, remeasure
from service.delivery.reportchecks import SLACK, check_accuracy, check_latency
from service.report.schema import Report
from tests.service.report import made


@pytest.fixture(scope="module")
def found(delivered: Path) -> Remeasurement:
    settings = TimingSettings(min_seconds=0.3, max_seconds=0.3, warmup_seconds=0.1, processes=1)
    return remeasure(delivered / "model.onnx", delivered / "baseline.onnx", settings)


def claiming(found: Remeasurement, low: float, high: float, **budget: Any) -> Report:
    report = made.report()
    return report.model_copy(
        update={
            "speedup": report.speedup.model_copy(update={"value": (low + high) / 2, "low": low, "high": high}),
            "budget": report.budget.model_copy(update={"asked": "1x", **budget}),
            "machine": report.machine.model_copy(update={"description": found.candidate.device.summary}),
        }
    )


def statuses(found: Remeasurement, report: Report) -> list[str]:
    return [check.status for check in check_latency(found, report)]


def test_a_claim_within_the_intervals_holds(found: Remeasurement) -> None:
    assert found.ratio is not None
    assert statuses(found, claiming(found, found.ratio.ci_low, found.ratio.ci_high)) == ["ok", "ok"]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_claim_of_another_speed_up_does_not(found: Remeasurement, factor: float) -> None:
    assert found.ratio is not None
    claim = claiming(found, factor * found.ratio.ci_low, factor * found.ratio.ci_high)
    assert statuses(found, claim)[0] == "failed"


def test_two_processes_may_differ_by_the_slack(found: Remeasurement) -> None:
    assert found.ratio is not None
    just = found.ratio.ci_high * (1 + 0.9 * SLACK)
    assert statuses(found, claiming(found, just, just))[0] == "ok"
    beyond = found.ratio.ci_high * (1 + 1.2 * SLACK)
    assert statuses(found, claiming(found, beyond, beyond))[0] == "failed"


def test_a_budget_that_is_missed_now_is_told(found: Remeasurement) -> None:
    assert found.ratio is not None
    low, high = found.ratio.ci_low, found.ratio.ci_high
    assert statuses(found, claiming(found, low, high, asked="0.001x"))[1] == "failed"
    assert statuses(found, claiming(found, low, high, asked="9ms", milliseconds=1e-6))[1] == "failed"
    assert statuses(found, claiming(found, low, high, asked="9ms", milliseconds=1e6))[1] == "ok"


def test_milliseconds_of_another_machine_say_nothing(found: Remeasurement) -> None:
    assert found.ratio is not None
    report = claiming(found, found.ratio.ci_low, found.ratio.ci_high, asked="9ms", milliseconds=1e-6)
    there = report.model_copy(update={"machine": report.machine.model_copy(update={"description": "elsewhere"})})
    assert statuses(found, there) == ["ok", "skipped"]


def test_a_budget_that_was_not_met_is_not_claimed(found: Remeasurement) -> None:
    assert found.ratio is not None
    report = claiming(found, found.ratio.ci_low, found.ratio.ci_high, asked="0.001x")
    assert statuses(found, report.model_copy(update={"outcome": "BUDGET_NOT_MET"}))[1] == "skipped"


def test_the_original_alone_has_nothing_to_hold(found: Remeasurement) -> None:
    assert statuses(replace(found, ratio=None), made.unimproved()) == ["skipped"]


def accuracy(correct: int, count: int) -> Accuracy:
    low, high = wilson(correct, count)
    return Accuracy(correct / count, correct, count, low, high, None, 10, 0)


def test_an_accuracy_holds_where_the_intervals_overlap() -> None:
    report = made.report()
    assert report.result.accuracy is not None
    assert check_accuracy(accuracy(round(10_000 * report.result.accuracy.top1), 10_000), report).status == "ok"
    assert check_accuracy(accuracy(90, 100), report).status == "ok"
    assert check_accuracy(accuracy(8500, 10_000), report).status == "failed"
    assert check_accuracy(accuracy(1, 2), made.unlabelled()).status == "skipped"
