"""From a latency table's sums to the times of whole networks."""

from __future__ import annotations

from typing import final

import numpy as np


@final
class Line:
    """actual = a + b * table, by least squares over what was measured; slope one through nothing until then."""

    def __init__(self) -> None:
        self._points: dict[float, list[float]] = {}

    def add(self, table: float, actual: float) -> None:
        """Learns that a network whose table sum is `table` took `actual` seconds."""
        self._points.setdefault(table, []).append(actual)

    def coefficients(self) -> tuple[float, float]:
        """Returns (a, b), b > 0.

        With one point the line goes through it and zero; a slope that is not positive is noise and treated alike.
        """
        if not self._points:
            return 0.0, 1.0
        table = np.array(list(self._points))
        actual = np.array([float(np.mean(values)) for values in self._points.values()])
        spread = float(np.sum((table - table.mean()) ** 2))
        if spread > 0:
            slope = float(np.sum((table - table.mean()) * (actual - actual.mean()))) / spread
            if slope > 0:
                return float(actual.mean() - slope * table.mean()), slope
        return 0.0, float(actual.sum() / max(table.sum(), 1e-12))

    def actual(self, table: float) -> float:
        """Returns the time to expect of a network with this table sum."""
        a, b = self.coefficients()
        return a + b * table

    def table(self, actual: float) -> float:
        """Returns the table sum that leads to this time."""
        a, b = self.coefficients()
        return max(0.0, (actual - a) / b)
