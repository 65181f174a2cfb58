"""What differs from process to process, and how sure that leaves an estimate.

Where a network's memory lies makes it a little faster or slower for as long as its process lives. No number of runs in
one process shows that; the spread of several processes does. With x_1 <= ... <= x_N the logarithms of what N processes
found, g = floor(N / 5) and h = N - 2 g, the interval is Student's t around the trimmed mean (Tukey and McLaughlin 1963,
"Less vulnerable confidence and significance procedures for location based on a single sample"),

    m +- t(1 - alpha / 2, h - 1) * s * sqrt((N - 1) / (h (h - 1))),    m = (x_{g+1} + ... + x_{N-g}) / h,

where s^2 is the variance, with N - 1 below, of the x_i with the g smallest replaced by x_{g+1} and the g largest by
x_{N-g}. For N below 5 that is the plain mean with its t-interval at N - 1 degrees of freedom. Trimming is for processes
that shared their processor with something else from beginning to end: a tenth of them can be off by half.

It assumes that the processes are independent draws of one symmetric distribution; for normal ones it covers as often as
it says to within a percent. Two things bend that, both to the safe side: orders of loading are balanced
(`deploy.measure.several`), so that what is due to them is in s and not in m; and spreads with long tails are covered
more often. What would break it is a machine that changes in the middle of a measurement in a way that favours one file:
the mean is then over two machines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from deploy.errors import MeasureError
from deploy.measure.distribution import (
    Interval,
    Rounds,
    bootstrap_percentile,
    bootstrap_ratio,
    describe_times,
    estimate_ratio,
)

PLACEMENT = 0.006
"""How far apart the latencies of two equal files in one process may be, as a share of them, at 95 %.

It stands in for the spread where there is one process only. Of 200 pairs of equal files (`benchmarks.trust.alike`),
with intervals of 0.2 % to each side from the runs alone, half were told to differ; the middles of 95 % were within
0.54 %, the largest error was 1.1 %. That was one machine and one network: elsewhere it is a guess.
"""

_TRIMMED = 5
_BISECTIONS = 80


@dataclass(frozen=True)
class Taken:
    """One file's times.

    Attributes:
        rounds: In seconds, of all processes one after the other.
        process_rounds: How many of them each process ran; empty for one process.
    """

    rounds: Rounds
    process_rounds: tuple[int, ...] = ()

    def by_process(self) -> list[Rounds]:
        """Returns the rounds of each process.

        Raises:
            MeasureError: If the counts are not those of the rounds.
        """
        if sum(self.process_rounds) != len(self.rounds):
            msg = f"processes with {list(self.process_rounds)} rounds cannot have run {len(self.rounds)} together"
            raise MeasureError(msg)
        return [self.rounds[start:end] for start, end in pairwise(accumulate(self.process_rounds, initial=0))]


def sure_ratio(numerator: Taken, denominator: Taken, percentile: str, confidence: float = 0.95) -> Interval:
    """Returns the ratio of two latencies, timed interleaved, with an interval that covers what processes differ by.

    For p50 the ratio is the processes' trimmed geometric mean. Higher percentiles need all runs, so that theirs is the
    ratio of the pooled percentiles, as in `bootstrap_ratio`, with the spread of the processes' own around it.

    Raises:
        MeasureError: If there are too few rounds, or those of the two do not belong together.
    """
    rounds = bootstrap_ratio(numerator.rounds, denominator.rounds, percentile, confidence)
    if len(denominator.process_rounds) < 2:
        return placed(rounds)
    pairs = zip(numerator.by_process(), denominator.by_process(), strict=True)
    found = [estimate_ratio(above, below, percentile) for above, below in pairs]
    return spread_over(found, rounds, None if percentile == "p50" else rounds.value)


def sure_percentile(taken: Taken, percentile: str, confidence: float = 0.95) -> Interval:
    """Returns a percentile of all runs, in seconds, with an interval that covers what processes differ by.

    Raises:
        MeasureError: If there are too few rounds.
    """
    rounds = bootstrap_percentile(taken.rounds, percentile, confidence)
    if len(taken.process_rounds) < 2:
        return placed(rounds)
    found = [describe_times(own).at(percentile) for own in taken.by_process()]
    return spread_over(found, rounds, rounds.value)


def placed(interval: Interval) -> Interval:
    """Returns an interval with `PLACEMENT` in it, added to each side as independent errors add up."""

    def wider(end: float) -> float:
        return math.sqrt(math.log(end / interval.value) ** 2 + PLACEMENT**2)

    value = interval.value
    return replace(interval, low=value * math.exp(-wider(interval.low)), high=value * math.exp(wider(interval.high)))


def spread_over(found: Sequence[float], floor: Interval, value: float | None = None) -> Interval:
    """Returns an estimate with the interval that the spread of several processes leaves it.

    Args:
        found: What each process found, above 0, at least two.
        floor: What the rounds alone say of the same thing; the interval is at least as wide to each side, because a few
            processes may agree by chance. Its confidence is the interval's.
        value: The estimate, above 0; the processes' geometric mean by default.

    Raises:
        MeasureError: If there are fewer than two processes.
    """
    if len(found) < 2:
        msg = f"{len(found)} process shows no spread; at least two are needed"
        raise MeasureError(msg)
    middle, half = _trimmed(np.log(np.asarray(found, dtype=np.float64)), floor.confidence)
    value = math.exp(middle) if value is None else value
    below = max(half, math.log(floor.value / floor.low))
    above = max(half, math.log(floor.high / floor.value))
    return Interval(value, value * math.exp(-below), value * math.exp(above), floor.confidence)


def _trimmed(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Returns the trimmed mean and half the width of its interval."""
    count = len(values)
    trimmed = count // _TRIMMED
    left = count - 2 * trimmed
    ordered = np.sort(values)
    inner = ordered[trimmed : count - trimmed]
    deviation = float(np.clip(ordered, inner[0], inner[-1]).std(ddof=1))
    quantile = t_quantile(0.5 + confidence / 2, left - 1)
    return float(inner.mean()), quantile * deviation * math.sqrt((count - 1) / (left * (left - 1)))


def t_quantile(probability: float, freedom: int) -> float:
    """Returns the value that Student's t stays below with a probability.

    Args:
        probability: From 0.5 to below 1.
        freedom: Degrees of freedom, at least 1.
    """
    # As an angle, t = sqrt(freedom) tan(angle), all values lie in a finite range, which halving searches.
    low, high = 0.0, math.pi / 2
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if 0.5 + _central(middle, freedom) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _central(angle: float, freedom: int) -> float:
    """Returns the probability that |t| stays below sqrt(freedom) tan(angle).

    Abramowitz and Stegun 1964, 26.7.3 (odd) and 26.7.4 (even): finite sums of powers of the cosine.
    """
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(1 + odd, freedom, 2):
        total += term
        term *= cosine**2 * power / (power + 1)
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
