from __future__ import annotations

import numpy as np
import pytest

from deploy.precision.calibrate import CALIBRATORS, calibrate
from deploy.precision.observe import BINS, Values


def values_of(numbers: np.ndarray) -> Values:
    low, high = float(numbers.min()), float(numbers.max())
    return Values(low, high, np.histogram(numbers, BINS, (low, high))[0])


def chosen(numbers: np.ndarray, calibrator: str, *, symmetric: bool = False) -> tuple[float, float]:
    return calibrate({"v": values_of(numbers)}, calibrator, symmetric=symmetric)["v"]


def squared_error(numbers: np.ndarray, low: float, high: float) -> float:
    """What 256 levels lose, number by number."""
    step = (high - low) / 255
    zero = round(-low / step)
    rounded = (np.clip(np.round(numbers / step) + zero, 0, 255) - zero) * step
    return float(np.square(rounded - numbers).mean())


NORMAL = np.random.default_rng(0).standard_normal(200_000)
POSITIVE = np.maximum(NORMAL, 0)
OUTLIER = np.append(NORMAL, 100.0)


def test_minmax_covers_everything() -> None:
    assert chosen(OUTLIER, "minmax") == (OUTLIER.min(), 100.0)


@pytest.mark.parametrize("calibrator", ["percentile", "entropy"])
def test_others_leave_an_outlier_out(calibrator: str) -> None:
    low, high = chosen(OUTLIER, calibrator)
    assert -6 < low < -1.5
    assert 1.5 < high < 50


def test_mse_narrows_the_range_as_far_as_that_pays() -> None:
    assert chosen(OUTLIER, "mse")[1] < 95


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_no_range_is_wider_than_what_was_seen(calibrator: str) -> None:
    for numbers in (NORMAL, POSITIVE, -POSITIVE, OUTLIER):
        low, high = chosen(numbers, calibrator)
        assert numbers.min() <= low < high <= numbers.max()


def test_percentile_leaves_out_one_in_ten_thousand() -> None:
    low, high = chosen(NORMAL, "percentile")
    outside = ((low > NORMAL) | (high < NORMAL)).mean()
    assert outside == pytest.approx(1e-4, rel=0.5)
    assert chosen(POSITIVE, "percentile")[0] == 0.0


@pytest.mark.parametrize("numbers", [NORMAL, POSITIVE, OUTLIER])
def test_mse_has_an_error_close_to_the_least(numbers: np.ndarray) -> None:
    low, high = numbers.min(), numbers.max()
    limits = np.linspace(0.02, 1, 120) * max(-low, high)
    best = min(squared_error(numbers, max(low, -limit), min(high, limit)) for limit in limits)
    assert squared_error(numbers, *chosen(numbers, "mse")) <= 1.1 * best


def test_mse_of_a_symmetric_range_weighs_both_sides() -> None:
    low, high = chosen(POSITIVE, "mse", symmetric=True)
    assert low == 0.0
    assert 0.5 * POSITIVE.max() < high <= POSITIVE.max()


def test_entropy_keeps_a_flat_distribution_whole() -> None:
    flat = np.linspace(-1, 1, 100_000)
    low, high = chosen(flat, "entropy")
    assert low == pytest.approx(-1, abs=0.05)
    assert high == pytest.approx(1, abs=0.05)
