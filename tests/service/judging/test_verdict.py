"""What outcomes floors lead to."""

from __future__ import annotations

import pytest

from compressors.tasks import TASKS
from deploy.measure.report import Budget, BudgetCheck, Ratio
from service.judging.quality import Goal, Quality
from service.judging.verdict import Evidence, judge, judge_without_candidate
from tests.deploy.measure.test_report import measurement

MET = BudgetCheck(met=True, seconds=0.01, limit_seconds=0.02, upper_seconds=0.011, certain=True, percentile="p50")
FASTER = Ratio(1.5, 1.5, 1.4, 1.6, 0.95, "p50", 100, 10)


def outcome(task: str, value: float, floor: float | None) -> tuple[str, str]:
    goal = Goal(TASKS[task], floor)
    verdict = judge(Evidence(MET, FASTER, Quality(goal.figure, value, 100), goal))
    return verdict.outcome, verdict.explanation


@pytest.mark.parametrize(
    ("task", "value", "words"),
    [
        ("classification", 0.8, "its top-1 accuracy of 80.00% on the validation samples is under the floor of 90.00%"),
        (
            "denoising",
            0.95,
            "noise-prediction error of 0.95 (mean squared error) on the validation samples is above the",
        ),
        (
            "none",
            0.95,
            "relative squared error of 0.95 (of the original's variance) on the validation samples is above",
        ),
    ],
)
def test_a_figure_on_the_wrong_side_of_its_floor_returns_the_original(task: str, value: float, words: str) -> None:
    found, explanation = outcome(task, value, 0.9)
    assert found == "NO_IMPROVEMENT"
    assert words in explanation


@pytest.mark.parametrize(("task", "value"), [("classification", 0.9), ("denoising", 0.9), ("none", 0.1)])
def test_a_figure_on_the_right_side_keeps_the_result(task: str, value: float) -> None:
    assert outcome(task, value, 0.9)[0] == "BUDGET_MET"


def test_without_a_floor_every_figure_will_do() -> None:
    assert outcome("classification", 0.01, None)[0] == "BUDGET_MET"


def test_networks_that_cannot_be_shipped_are_told_with_the_reason() -> None:
    goal = Goal(TASKS["classification"], None)
    budget = Budget(None, 0.5)
    none = judge_without_candidate(measurement(1e-3), budget, goal)
    refused = judge_without_candidate(
        measurement(1e-3), budget, goal, ["its file differs by 2", "its file differs by 3"]
    )

    assert none.outcome == refused.outcome == "NO_IMPROVEMENT"
    assert none.explanation == "No faster network was found within the time limit. The original is returned."
    assert refused.explanation == (
        "2 networks were planned and cannot be shipped: its file differs by 2. The original is returned."
    )
