"""Statistics of times: percentiles, and the confidence interval of a ratio of two interleaved measurements.

Noise on a shared machine comes in bursts of milliseconds to seconds, so successive runs are not independent and a
bootstrap over runs would give intervals that are far too narrow. The unit that is drawn here is a round, in which both
models ran, so that what hits both cancels; and rounds are drawn in blocks of neighbours (Künsch 1989; circular form of
Politis and Romano 1992), so that bursts longer than a round are kept whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from deploy.errors import MeasureError
from deploy.measure.settings import MIN_ROUNDS, check_percentile

Rounds = Sequence[Sequence[float]]
"""Seconds of every run that counts, by round; a round may be empty."""

_RESAMPLES = 1000
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Distribution:
    """Times of one model file, in seconds, all rounds pooled.

    Attributes:
        p50: Median.
        p90: 90th percentile.
        p95: 95th percentile.
        p99: 99th percentile.
        mean: Mean.
        std: Standard deviation.
        min: Fastest run.
        max: Slowest run.
        n: Number of runs.
        rounds: Number of rounds with runs in them.
        p50_of_rounds: Median of the rounds' medians: less moved by a burst than the pooled median.
    """

    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    std: float
    min: float
    max: float
    n: int
    rounds: int
    p50_of_rounds: float

    def at(self, percentile: str) -> float:
        """Returns the seconds at one of `PERCENTILES`.

        Raises:
            TimingSettingsError: If the percentile is not known.
        """
        check_percentile(percentile)
        return float(getattr(self, percentile))


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        value: The estimate.
        low: Lower end.
        high: Upper end.
        confidence: Probability that such an interval covers the truth, 0 to 1.
    """

    value: float
    low: float
    high: float
    confidence: float


def describe_times(rounds: Rounds) -> Distribution:
    """Returns the distribution of all runs.

    Raises:
        MeasureError: If there are no runs.
    """
    values = np.fromiter(chain.from_iterable(rounds), dtype=np.float64)
    if values.size == 0:
        msg = "there is not a single timed run to describe"
        raise MeasureError(msg)
    p50, p90, p95, p99 = (float(value) for value in np.percentile(values, [50, 90, 95, 99]))
    return Distribution(
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        min=float(values.min()),
        max=float(values.max()),
        n=int(values.size),
        rounds=sum(len(block) > 0 for block in rounds),
        p50_of_rounds=float(np.median([np.median(block) for block in rounds if len(block)])),
    )


def thin(rounds: Rounds, limit: int) -> tuple[float, ...]:
    """Returns at most `limit` runs, evenly spaced over time and in the order they ran, for a plot."""
    values = list(chain.from_iterable(rounds))
    if len(values) <= limit:
        return tuple(values)
    return tuple(values[index] for index in np.linspace(0, len(values) - 1, limit).round().astype(int))


def bootstrap_percentile(rounds: Rounds, percentile: str, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Returns a percentile of all runs with its confidence interval.

    Raises:
        MeasureError: If there are fewer than `MIN_ROUNDS` rounds.
    """
    rounds = [block for block in rounds if len(block)]
    _check_rounds(len(rounds))
    draws = [_percentiles(rounds, counts, percentile) for counts in _draws(len(rounds), _runs(rounds), seed)]
    return _interval(describe_times(rounds).at(percentile), np.concatenate(draws), confidence)


def bootstrap_ratio(
    numerator: Rounds, denominator: Rounds, percentile: str, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Returns the ratio of two latencies with its confidence interval; the rounds must be interleaved ones.

    For p50 it is the median over rounds of the ratio of the round's two medians. A shared machine has fast and slow
    spells of seconds, and the pooled median jumps between them while this paired one does not: on a network against
    itself, on two busy cores, the pooled ratio was off by up to 12 %, the paired one by under 1 %. Higher percentiles
    need all runs, and are the ratio of the pooled percentiles. Rounds in which one has no runs are passed over.

    Raises:
        MeasureError: If the number of rounds differs, or is below `MIN_ROUNDS`.
    """
    if len(numerator) != len(denominator):
        msg = f"cannot pair {len(numerator)} rounds with {len(denominator)}: both must come from one measurement"
        raise MeasureError(msg)
    numerator, denominator = _common(numerator, denominator)
    _check_rounds(len(numerator))
    if percentile == "p50":
        return _paired(numerator, denominator, confidence, seed)
    runs = _runs(numerator) + _runs(denominator)
    draws = [
        _percentiles(numerator, counts, percentile) / _percentiles(denominator, counts, percentile)
        for counts in _draws(len(numerator), runs, seed)
    ]
    return _interval(estimate_ratio(numerator, denominator, percentile), np.concatenate(draws), confidence)


def estimate_ratio(numerator: Rounds, denominator: Rounds, percentile: str) -> float:
    """Returns the ratio that `bootstrap_ratio` gives an interval, without one.

    Raises:
        MeasureError: If there is no round in which both have runs.
    """
    numerator, denominator = _common(numerator, denominator)
    if percentile == "p50" and numerator:
        return float(np.median(_ratios(numerator, denominator)))
    return describe_times(numerator).at(percentile) / describe_times(denominator).at(percentile)


def _common(numerator: Rounds, denominator: Rounds) -> tuple[Rounds, Rounds]:
    """Returns the rounds in which both have runs."""
    both = [pair for pair in zip(numerator, denominator, strict=True) if all(map(len, pair))]
    return [above for above, _ in both], [below for _, below in both]


def _ratios(numerator: Rounds, denominator: Rounds) -> list[float]:
    return [float(np.median(above) / np.median(below)) for above, below in zip(numerator, denominator, strict=True)]


def _paired(numerator: Rounds, denominator: Rounds, confidence: float, seed: int) -> Interval:
    ratios = _ratios(numerator, denominator)
    alone = [[ratio] for ratio in ratios]
    draws = [_percentiles(alone, counts, "p50") for counts in _draws(len(alone), len(alone), seed)]
    return _interval(float(np.median(ratios)), np.concatenate(draws), confidence)


def _runs(rounds: Rounds) -> int:
    return sum(map(len, rounds))


def _check_rounds(rounds: int) -> None:
    if rounds < MIN_ROUNDS:
        msg = f"{rounds} rounds are too few for a confidence interval; at least {MIN_ROUNDS} are needed"
        raise MeasureError(msg)


def _interval(value: float, draws: NDArray[np.float64], confidence: float) -> Interval:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(value, float(low), float(high), confidence)


def _draws(count: int, runs: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yields how often each round is drawn, shape (resamples, count), in pieces that fit in memory."""
    generator = np.random.default_rng(seed)
    length = max(1, round(count ** (1 / 3)))
    blocks = -(-count // length)
    piece = max(1, min(_RESAMPLES, _CHUNK // max(1, runs)))
    for start in range(0, _RESAMPLES, piece):
        rows = min(piece, _RESAMPLES - start)
        first = generator.integers(0, count, (rows, blocks, 1))
        # (rows, blocks, 1) + (length,) -> (rows, blocks * length), cut to as many rounds as there were.
        drawn = ((first + np.arange(length)) % count).reshape(rows, -1)[:, :count]
        counts = np.zeros((rows, count), dtype=np.int64)
        np.add.at(counts, (np.arange(rows)[:, None], drawn), 1)
        yield counts


def _percentiles(rounds: Rounds, counts: NDArray[np.int64], percentile: str) -> NDArray[np.float64]:
    """Returns the percentile of every resample: runs weighted by how often their round was drawn, inverted CDF."""
    values = np.fromiter(chain.from_iterable(rounds), dtype=np.float64)
    owner = np.repeat(np.arange(len(rounds)), [len(block) for block in rounds])
    order = np.argsort(values, kind="stable")
    weights = np.cumsum(counts[:, owner[order]], axis=1)
    target = np.maximum(weights[:, -1:] * check_percentile(percentile) / 100, 1)
    drawn: NDArray[np.float64] = values[order][np.argmax(weights >= target, axis=1)]
    return drawn
