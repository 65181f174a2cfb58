from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from service.faults import FAULTS
from service.jobs.states import State
from service.spec import Budget
from service.web import words
from service.web.curves import HEIGHT, WIDTH, Curve
from service.web.figures import numbers
from service.web.refusals import STATUSES
from service.web.summaries import describe_budget, describe_terms

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "just now"), (44, "just now"), (50, "1 min ago"), (600, "10 min ago"), (7200, "2 h ago"), (90_000, "1 d ago"),
     (40 * 86_400, "2026-01-20")],
)  # fmt: skip
def test_moments_are_told_from_now(seconds: float, text: str) -> None:
    assert words.ago(NOW - timedelta(seconds=seconds), NOW).replace("\N{NARROW NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (42.9, "42 s"), (125, "2 min 05 s"), (3720, "1 h 02 min"), (100_000, "1 d 3 h")]
)
def test_spans_are_short(seconds: float, text: str) -> None:
    assert words.clock(seconds).replace("\N{NARROW NO-BREAK SPACE}", " ") == text


def test_every_state_and_blame_has_words() -> None:
    assert words.STATES.keys() == set(State)
    assert {fault.blame for fault in FAULTS.values()} <= words.WHAT_TO_DO.keys()


def test_statuses_are_for_codes_that_faults_have() -> None:
    assert STATUSES.keys() - {"ALREADY_EXISTS"} <= {fault.code for fault in FAULTS.values()}


def test_budgets_are_told_as_they_were_asked_for() -> None:
    assert describe_budget(Budget(fraction=0.6)) == "0.6\N{MULTIPLICATION SIGN}"
    assert describe_budget(Budget(latency_ms=12.5)) == "12.5\N{NARROW NO-BREAK SPACE}ms"
    assert describe_terms(Budget(fraction=0.6)) == ""
    assert describe_terms(Budget(fraction=0.6, percentile=99, batch=8)) == "at p99, batch 8"


def test_a_curve_stays_within_its_drawing_however_long_it_gets() -> None:
    curve = Curve()
    for value in range(10_000):
        curve.add(float(value))
    places = [tuple(map(float, point.split(","))) for point in curve.points.split()]
    assert 2 < len(places) < 300
    assert (places[0][0], places[-1][0]) == (0, WIDTH)
    assert all(0 <= y <= HEIGHT for _, y in places)
    assert places[0][1] > places[-1][1]


def test_a_number_that_never_changed_has_no_curve() -> None:
    curve = Curve()
    for _ in range(5):
        curve.add(1.0)
    assert curve.points == ""


def test_numbers_have_units_and_an_order() -> None:
    found = numbers({"zeta": 1.0, "holdout_accuracy": 0.5, "baseline_ms": 4.0}, {})
    assert [(one.name, one.value.replace("\N{NARROW NO-BREAK SPACE}", " ")) for one in found] == [
        ("baseline", "4.00 ms"),
        ("holdout accuracy", "50.00 %"),
        ("zeta", "1.00"),
    ]
