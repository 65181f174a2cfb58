"""Intervals over processes, held against processes whose spread is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.errors import MeasureError
from deploy.measure.distribution import Interval
from deploy.measure.settings import PROCESSES
from deploy.measure.spread import Taken, spread_over, sure_ratio, t_quantile

NO_FLOOR = Interval(1.0, 1.0, 1.0, 0.95)
TRUTH = 1.25


def covered(logs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns which rows of logarithms, one measurement each, have intervals that cover 0."""
    found = [spread_over(np.exp(row), NO_FLOOR) for row in logs]
    return np.array([interval.low <= 1.0 <= interval.high for interval in found])


@pytest.mark.parametrize(
    ("freedom", "wanted"),
    # The table of any textbook.
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (7, 2.365), (9, 2.262), (30, 2.042)],
)
def test_students_t(freedom: int, wanted: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(wanted, abs=5e-4)


@pytest.mark.parametrize("freedom", [2, 3, 6])
def test_students_t_is_what_its_density_says(freedom: int) -> None:
    """The slow way: the density summed up to the quantile."""
    edges = np.linspace(0, t_quantile(0.9, freedom), 20_001)
    middles = (edges[1:] + edges[:-1]) / 2
    scale = math.gamma((freedom + 1) / 2) / math.sqrt(freedom * math.pi) / math.gamma(freedom / 2)
    density = scale * (1 + middles**2 / freedom) ** (-(freedom + 1) / 2)
    assert density.sum() * (edges[1] - edges[0]) == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("count", [3, 4, 6, PROCESSES])
def test_the_truth_is_covered_as_often_as_is_said(count: int) -> None:
    """95 % of 2000 measurements by normal processes, within four binomial deviations and trimming's one percent."""
    logs = np.random.default_rng(count).normal(0.0, 0.003, (2000, count))
    error = 4 * math.sqrt(0.95 * 0.05 / 2000)
    assert 0.95 - error - 0.01 < covered(logs).mean() < 0.95 + error


def test_processes_that_were_held_up_leave_the_truth_covered_and_the_interval_narrow() -> None:
    """One process of ten is off by half, to either side."""
    generator = np.random.default_rng(0)
    logs = generator.normal(0.0, 0.003, (2000, PROCESSES))
    logs[np.arange(2000), generator.integers(0, PROCESSES, 2000)] += generator.choice([-0.4, 0.4], 2000)
    assert covered(logs).mean() > 0.95 - 4 * math.sqrt(0.95 * 0.05 / 2000)
    widths = [spread_over(np.exp(row), NO_FLOOR).high - 1 for row in logs]
    assert np.median(widths) < 0.01


def test_below_five_processes_it_is_the_textbooks_interval() -> None:
    found = spread_over([math.exp(value) for value in (0.01, 0.03, 0.02)], NO_FLOOR)
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert math.log(found.value) == pytest.approx(0.02)
    assert math.log(found.low) == pytest.approx(0.02 - half)
    assert math.log(found.high) == pytest.approx(0.02 + half)


def test_processes_that_agree_by_chance_leave_what_the_rounds_say() -> None:
    found = spread_over([1.5] * 5, Interval(1.0, 0.98, 1.03, 0.9))
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.5 * 0.98, 1.5 * 1.03))
    assert found.confidence == 0.9


def test_one_process_shows_no_spread() -> None:
    with pytest.raises(MeasureError, match="1 process shows no spread"):
        spread_over([1.0], NO_FLOOR)


def simulated(generator: np.random.Generator, spread: float) -> tuple[Taken, Taken]:
    """Two files of ten processes, one `TRUTH` times slower, each placed at random in every process."""
    placed = generator.normal(0, spread, (2, PROCESSES, 1, 1))
    noise = generator.normal(0, 0.01, (2, PROCESSES, 12, 3))
    times = np.exp(placed + noise).reshape(2, PROCESSES * 12, 3)
    slow, fast = (tuple(map(tuple, rounds)) for rounds in (1e-3 * TRUTH * times[0], 1e-3 * times[1]))
    return Taken(slow, (12,) * PROCESSES), Taken(fast, (12,) * PROCESSES)


def test_placement_is_covered_from_the_rounds_on() -> None:
    """All of the way from rounds: 95 % of 120, within four binomial deviations and trimming's one percent."""
    generator = np.random.default_rng(5)
    found = [sure_ratio(*simulated(generator, 0.004), "p50") for _ in range(120)]
    share = np.mean([interval.low <= TRUTH <= interval.high for interval in found])
    assert share > 0.94 - 4 * math.sqrt(0.95 * 0.05 / 120)


def test_a_true_difference_is_found_where_the_rounds_of_one_process_would_invent_it() -> None:
    ratio = sure_ratio(*simulated(np.random.default_rng(6), 0.004), "p50")
    assert 1.0 < ratio.low < TRUTH < ratio.high
    assert ratio.high / ratio.low - 1 < 0.03
