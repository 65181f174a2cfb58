"""From how a value is spread to the range that int8 covers: numbers beyond it are pushed to its ends.

A narrower range has finer steps inside and larger errors outside. Four ways to choose it:

* `minmax`: all that was seen.
* `percentile`: all but the outermost 0.01 %.
* `mse`: the limit of magnitudes with the least mean squared error of the numbers that were counted, of 60 tried.
* `entropy`: the range whose 8-bit distribution has the least Kullback-Leibler divergence from the one that was counted
  (S. Migacz, "8-bit inference with TensorRT", GTC 2017), on magnitudes, with 128 levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deploy.precision.observe import Values

_OUTERMOST: Final = 1e-4
_TRIED: Final = np.linspace(0.15, 1.0, 60)
_LEVELS: Final = 255
_ENTROPY_LEVELS: Final = 128
_ENTROPY_STEP: Final = 32

Range = tuple[float, float]


def calibrate(values: Mapping[str, Values], calibrator: str, *, symmetric: bool) -> dict[str, Range]:
    """Returns the range to cover of every value.

    Args:
        values: What was counted.
        calibrator: One of `CALIBRATORS`.
        symmetric: Whether 0 has to be in the middle; the range that is returned is as given to the quantiser, which
            makes it symmetric.
    """
    choose = CALIBRATORS[calibrator]
    return {name: choose(each, symmetric) for name, each in values.items()}


def _minmax(values: Values, symmetric: bool) -> Range:  # noqa: ARG001  one signature for all
    return values.low, values.high


def _percentile(values: Values, symmetric: bool) -> Range:  # noqa: ARG001
    """Leaves the outermost numbers out, at both ends where there are numbers of both signs."""
    total, seen = int(values.counts.sum()), np.cumsum(values.counts)
    sides = 2 if values.low < 0 < values.high else 1
    least = total * _OUTERMOST / sides
    edges = np.linspace(values.low, values.high, len(values.counts) + 1)
    low = edges[int(np.searchsorted(seen, least, side="right"))] if values.low < 0 else values.low
    high = edges[int(np.searchsorted(seen, total - least)) + 1] if values.high > 0 else values.high
    return float(low), float(high)


def _mse(values: Values, symmetric: bool) -> Range:
    low, high = min(values.low, 0.0), max(values.high, 0.0)
    limits = _TRIED * max(-low, high)
    ends = [(-limit, limit) if symmetric else (max(low, -limit), min(high, limit)) for limit in limits]
    errors = [_squared_error(values, *each) for each in ends]
    # Of equal ones the widest: it is the one that later samples fit into.
    limit = float(limits[len(errors) - 1 - int(np.argmin(errors[::-1]))])
    return max(values.low, -limit), min(values.high, limit)


def _squared_error(values: Values, low: float, high: float) -> float:
    step = (high - low) / _LEVELS
    if step <= 0:
        return 0.0
    centres = values.centres
    rounded = np.clip(np.round((centres - low) / step), 0, _LEVELS) * step + low
    return float(values.counts @ np.square(centres - rounded))


def _entropy(values: Values, symmetric: bool) -> Range:  # noqa: ARG001
    magnitudes, largest = _magnitudes(values)
    sizes = [*range(_ENTROPY_LEVELS, len(magnitudes), _ENTROPY_STEP), len(magnitudes)]
    divergences = [_divergence(magnitudes, size) for size in sizes]
    limit = largest * sizes[int(np.argmin(divergences))] / len(magnitudes)
    return max(values.low, -limit), min(values.high, limit)


def _magnitudes(values: Values) -> tuple[NDArray[np.float64], float]:
    """Returns counts of magnitudes from 0 to the largest, and that; zeros are left out, as Migacz has it."""
    largest = max(abs(values.low), abs(values.high))
    counts, _ = np.histogram(np.abs(values.centres), len(values.counts), (0.0, largest), weights=values.counts)
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    return counts, largest


def _divergence(counts: NDArray[np.float64], size: int) -> float:
    """Returns how far the distribution of the first `size` parts is from itself in `_ENTROPY_LEVELS` levels."""
    kept = counts[:size].copy()
    wanted = kept.copy()
    wanted[-1] += counts[size:].sum()
    level = np.arange(size) * _ENTROPY_LEVELS // size
    there = kept > 0
    mass = np.bincount(level, kept, _ENTROPY_LEVELS)
    parts = np.bincount(level, there, _ENTROPY_LEVELS)
    coarse = np.where(there, (mass / np.maximum(parts, 1))[level], 0.0)
    if not wanted.sum() or not coarse.sum():
        return np.inf
    p, q = wanted / wanted.sum(), coarse / coarse.sum()
    if ((p > 0) & (q == 0)).any():
        q = np.where(q == 0, 1e-12, q)
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


CALIBRATORS: Final[Mapping[str, Callable[[Values, bool], Range]]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
"""By the name that the report has."""
