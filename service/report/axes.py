"""Scales and ticks: from data to the coordinates of a drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, in the drawing's units, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """A linear map from [low, high] to [start, end], in the drawing's units.

    `end` may be smaller than `start`, and `low` larger than `high` where less is better.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Returns the coordinate of a value, rounded to a tenth so that drawings stay small."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def clamped(self, value: float) -> float:
        """Returns the coordinate of the nearest value on the scale."""
        low, high = sorted((self.low, self.high))
        return self(min(max(value, low), high))

    def ticks(self, wanted: int = 5) -> list[Tick]:
        """Returns about `wanted` ticks at round values."""
        low, high = sorted((self.low, self.high))
        step = _round_step((high - low) / max(1, wanted))
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(low / step - 1e-9)
        last = math.floor(high / step + 1e-9)
        return [Tick(self(index * step), f"{index * step:,.{decimals}f}") for index in range(first, last + 1)]


def _round_step(rough: float) -> float:
    """Returns the smallest of 1, 2, 5 or 10 times a power of ten that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def padded(values: Iterable[float], share: float = 0.06, least: float = 1e-9) -> tuple[float, float]:
    """Returns a range around the values with some room on both sides; never empty."""
    known = list(values)
    low, high = min(known), max(known)
    room = max((high - low) * share, least, abs(high) * 1e-3)
    return low - room, high + room
