from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cli import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1.9249, "1.92"),
        (0.0813, "0.0813"),
        (12.345, "12.3"),
        (123.45, "123"),
        (1234.5, "1234"),
        (-0.5, "-0.500"),
        (1e-9, "1.00e-09"),
    ],
)
def test_significant(value: float, text: str) -> None:
    assert figures.significant(value) == text


@given(st.floats(min_value=1e-4, max_value=9e6))
def test_significant_keeps_the_value(value: float) -> None:
    assert float(figures.significant(value)) == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.84, "0.8 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (84, "1 min 24 s"),
        (7500, "2 h 05 min"),
        (-1, "0.0 s"),
    ],
)
def test_clock(seconds: float, text: str) -> None:
    assert figures.clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "about 5 s"), (42, "about 40 s"), (57, "about 1 min"), (170, "about 3 min"), (5400, "about 1.5 h")],
)
def test_estimates_are_rounded(seconds: float, text: str) -> None:
    assert figures.about(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(7, "7"), (999, "999"), (272_474, "272 k"), (4.1e7, "41.0 M")])
def test_large(count: float, text: str) -> None:
    assert figures.large(count) == text


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (999, "999 B"), (1_240_000, "1.24 MB")])
def test_data_sizes(size: float, text: str) -> None:
    assert figures.data_size(size) == text


def test_metrics_carry_the_unit_that_their_name_says_times_first() -> None:
    values = {"other": 3.0, "holdout_accuracy": 0.9172, "loss": 0.12345, "baseline_ms": 1.9249, "step": 7.0}
    assert figures.metrics(values) == ["baseline 1.92 ms", "loss 0.123", "holdout accuracy 91.72 %", "other 3.00"]
