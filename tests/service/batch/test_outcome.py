from __future__ import annotations

import pytest

from service.batch.outcome import Measured, ModelOutcome, QualityPair


def _pair(before: Measured, after: Measured, unit: str = "fraction") -> QualityPair:
    return QualityPair(name="top-1 accuracy", unit=unit, higher_is_better=True, before=before, after=after, count=80)


def test_the_interval_of_a_change_is_newcombes() -> None:
    # Newcombe (1998), table II (a): 56/70 - 48/80 has the interval 0.0524 to 0.3339 (method 10).
    after = Measured(value=56 / 70, low=0.6918, high=0.8769)
    before = Measured(value=48 / 80, low=0.4905, high=0.7004)
    change = _pair(before, after).change
    assert (change.value, change.low, change.high) == pytest.approx((20.0, 5.24, 33.39), abs=0.05)


def test_a_figure_without_intervals_has_a_change_without_one() -> None:
    change = _pair(Measured(value=0.5), Measured(value=0.4), "mean squared error").change
    assert (change.value, change.low) == (pytest.approx(-0.1), None)


@pytest.mark.parametrize(
    ("verdict", "blame", "settled"),
    [
        ("BUDGET_MET", "", True),
        ("NO_IMPROVEMENT", "", True),
        ("FAILED", "caller", True),
        ("FAILED", "machine", False),
        ("CANCELLED", "", False),
        ("UNREACHED", "machine", False),
    ],
)
def test_only_what_would_come_to_the_same_is_settled(verdict: str, blame: str, settled: bool) -> None:
    outcome = ModelOutcome.model_validate({"name": "net", "verdict": verdict, "blame": blame})
    assert outcome.settled is settled
