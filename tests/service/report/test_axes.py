from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.report.axes import Scale, padded


def test_maps_the_ends_to_the_ends():
    scale = Scale(2, 4, 300, 20)
    assert (scale(2), scale(3), scale(4)) == (300, 160, 20)


def test_clamps():
    assert Scale(0, 1, 0, 10).clamped(7) == 10


@given(st.floats(-1e5, 1e5), st.floats(1e-6, 1e5), st.integers(2, 8))
def test_ticks_are_few_round_and_inside(low: float, width: float, wanted: int):
    scale = Scale(low, low + width, 0, 100)
    ticks = scale.ticks(wanted)
    assert len(ticks) <= wanted + 2
    assert all(-0.2 <= tick.at <= 100.2 for tick in ticks)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0.9, 1.75, "1.0 1.2 1.4 1.6"),
        (0, 25, "0 5 10 15 20 25"),
        (0.01, 0.052, "0.01 0.02 0.03 0.04 0.05"),
    ],
)
def test_ticks_read_well(low: float, high: float, texts: str):
    assert [tick.text for tick in Scale(low, high, 0, 1).ticks(5)] == texts.split()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_a_padded_range_holds_its_values_and_is_never_empty(values: list[float]):
    low, high = padded(values)
    assert low < min(values) <= max(values) < high


def test_a_scale_that_is_turned_over_has_its_ticks_and_its_ends():
    scale = Scale(10.0, 0.0, 0.0, 100.0)
    assert [(tick.at, tick.text) for tick in scale.ticks(2)] == [(100.0, "0"), (50.0, "5"), (0.0, "10")]
    assert (scale.clamped(20.0), scale.clamped(-1.0)) == (0.0, 100.0)
