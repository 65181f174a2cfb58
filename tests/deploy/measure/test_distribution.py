from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import MeasureError, TimingSettingsError
from deploy.measure.distribution import bootstrap_percentile, bootstrap_ratio, describe_times, thin
from deploy.measure.settings import PERCENTILES

TIMES = st.lists(st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=6), min_size=1, max_size=8)


@given(TIMES)
def test_percentiles_are_numpys(rounds: list[list[float]]) -> None:
    pooled = np.concatenate([np.asarray(block) for block in rounds])
    times = describe_times(rounds)
    for name, percentile in PERCENTILES.items():
        assert times.at(name) == pytest.approx(np.percentile(pooled, percentile), rel=1e-12)
    assert times.mean == pytest.approx(pooled.mean(), rel=1e-12)
    assert (times.min, times.max, times.n, times.rounds) == (pooled.min(), pooled.max(), pooled.size, len(rounds))
    assert times.p50_of_rounds == np.median([np.median(block) for block in rounds])


def test_the_standard_deviation_is_the_samples() -> None:
    assert describe_times([[1.0, 2.0], [3.0]]).std == pytest.approx(1.0)
    assert describe_times([[1.0]]).std == 0.0


def test_nothing_cannot_be_described() -> None:
    with pytest.raises(MeasureError, match="not a single"):
        describe_times([[], []])


def test_an_unknown_percentile_is_refused() -> None:
    with pytest.raises(TimingSettingsError, match="p50, p90, p95, p99"):
        describe_times([[1.0]]).at("mean")


def test_thinning_keeps_order_ends_and_limit() -> None:
    rounds = [[float(10 * block + index) for index in range(10)] for block in range(100)]
    kept = thin(rounds, 50)
    assert len(kept) == 50
    assert list(kept) == sorted(kept)
    assert (kept[0], kept[-1]) == (0.0, 999.0)
    assert thin(rounds, 1000) == tuple(float(value) for value in range(1000))


def noisy(generator: np.random.Generator, rounds: int, runs: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A model and one twice as slow on a machine whose speed wanders: log-AR(1) over rounds, shared by both."""
    level, levels = 0.0, []
    for _ in range(rounds):
        level = 0.9 * level + generator.normal(0, 0.1)
        levels.append(level)
    shared = np.exp(np.array(levels))[:, None]
    fast = shared * np.exp(generator.normal(0, 0.05, (rounds, runs)))
    slow = 2 * shared * np.exp(generator.normal(0, 0.05, (rounds, runs)))
    return slow, fast


@pytest.mark.parametrize("percentile", ["p50", "p90"])
def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says(percentile: str) -> None:
    generator = np.random.default_rng(0)
    trials = 60
    covered = 0
    for _ in range(trials):
        interval = bootstrap_ratio(*(x.tolist() for x in noisy(generator, 60, runs=4)), percentile)
        covered += interval.low <= 2.0 <= interval.high
    # 57 of 60 expected; below 51 has a probability of about 0.002 at a true coverage of 95 %.
    assert covered >= 51


def test_the_interval_shrinks_with_the_number_of_rounds() -> None:
    generator = np.random.default_rng(1)
    widths = []
    for rounds in (25, 400):
        interval = bootstrap_ratio(*(x.tolist() for x in noisy(generator, rounds)), "p50")
        widths.append(interval.high - interval.low)
    # Sixteen times the rounds: a quarter of the width, give or take the noise of two draws.
    assert 0.12 < widths[1] / widths[0] < 0.5


def test_drift_that_both_share_widens_an_absolute_interval_but_not_the_ratios() -> None:
    slow, fast = (x.tolist() for x in noisy(np.random.default_rng(2), 200))
    absolute = bootstrap_percentile(fast, "p50")
    ratio = bootstrap_ratio(slow, fast, "p50")
    assert (ratio.high - ratio.low) / ratio.value < 0.25 * (absolute.high - absolute.low) / absolute.value


def test_neighbouring_rounds_are_drawn_together() -> None:
    """With autocorrelated rounds, an interval from single rounds would be too narrow; this one is not."""
    generator = np.random.default_rng(3)
    level, values = 0.0, []
    for _ in range(343):
        level = 0.8 * level + generator.normal(0, 0.1)
        values.append([1 + level])
    interval = bootstrap_percentile(values, "p50")
    means = np.median(generator.choice(np.ravel(values), (1000, 343)), axis=1)
    naive = np.percentile(means, 97.5) - np.percentile(means, 2.5)
    assert interval.high - interval.low > 1.4 * naive


def test_p50_of_a_ratio_is_paired_within_rounds() -> None:
    """A machine with two speeds: the pooled medians fall on different ones, the pairs never do."""
    fast_rounds, slow_rounds = [[1.0] * 4] * 5, [[3.0] * 4] * 4
    numerator = [[2.0 * value for value in block] for block in fast_rounds + slow_rounds]
    denominator = [*fast_rounds, *slow_rounds]
    interval = bootstrap_ratio(numerator, denominator, "p50")
    assert (interval.value, interval.low, interval.high) == (2.0, 2.0, 2.0)


def test_equal_seeds_give_equal_intervals() -> None:
    slow, fast = (x.tolist() for x in noisy(np.random.default_rng(4), 30))
    assert bootstrap_ratio(slow, fast, "p99") == bootstrap_ratio(slow, fast, "p99")


def test_pieces_of_the_bootstrap_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many runs are resampled in pieces that fit in memory; the number of resamples does not depend on it."""
    slow, fast = (x.tolist() for x in noisy(np.random.default_rng(5), 30))
    whole = bootstrap_ratio(slow, fast, "p95")
    monkeypatch.setattr("deploy.measure.distribution._CHUNK", 10_000)
    pieces = bootstrap_ratio(slow, fast, "p95")
    assert pieces.low == pytest.approx(whole.low, rel=0.02)
    assert pieces.high == pytest.approx(whole.high, rel=0.02)


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(MeasureError, match="cannot pair 6 rounds with 5"):
        bootstrap_ratio([[1.0]] * 6, [[1.0]] * 5, "p50")


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(MeasureError, match="4 rounds are too few"):
        bootstrap_ratio([[1.0]] * 4, [[1.0]] * 4, "p50")
    with pytest.raises(MeasureError, match="4 rounds are too few"):
        bootstrap_percentile([[1.0]] * 4, "p50")


def test_rounds_without_runs_are_passed_over_in_pairs() -> None:
    numerator = [[2.0], [], [2.0], [9.0], [2.0], [2.0], [2.0]]
    denominator = [[1.0], [5.0], [1.0], [], [1.0], [1.0], [1.0]]
    interval = bootstrap_ratio(numerator, denominator, "p50")
    assert (interval.value, interval.low, interval.high) == (2.0, 2.0, 2.0)
    assert bootstrap_ratio(numerator, denominator, "p99").value == 2.0
    assert describe_times(numerator).rounds == 6
    with pytest.raises(MeasureError, match="4 rounds are too few"):
        bootstrap_ratio(numerator[:6], denominator[:6], "p50")
