"""A number over time, as a small drawing."""

from __future__ import annotations

from typing import Final, final

WIDTH: Final = 120
HEIGHT: Final = 24
_MARGIN: Final = 2
_MOST: Final = 240


@final
class Curve:
    """What a number was, evenly thinned out when there is too much of it."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._every = 1
        self._seen = 0
        self.latest = 0.0

    def add(self, value: float) -> None:
        """Takes the next value."""
        self.latest = value
        if self._seen % self._every == 0:
            self._values.append(value)
        self._seen += 1
        if len(self._values) > _MOST:
            self._values = self._values[::2]
            self._every *= 2

    @property
    def points(self) -> str:
        """The points of an SVG polyline of `WIDTH` by `HEIGHT`; empty where the number never changed."""
        values = [*self._values, self.latest]
        low, high = min(values), max(values)
        if low == high:
            return ""
        step = WIDTH / (len(values) - 1)
        rise = (HEIGHT - 2 * _MARGIN) / (high - low)
        return " ".join(f"{at * step:.1f},{HEIGHT - _MARGIN - (v - low) * rise:.1f}" for at, v in enumerate(values))
