"""The three small drawings at the top: latency against the budget, speed-up and accuracies with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.report.axes import Scale, padded
from service.report.charts import at_percentile

if TYPE_CHECKING:
    from service.report.schema import NetworkReport, Report

WIDTH: Final = 260
_ROW: Final = 16


@dataclass(frozen=True)
class Bar:
    """A length from zero."""

    y: float
    width: float
    style: str


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval."""

    y: float
    at: float
    low: float
    high: float
    style: str


@dataclass(frozen=True)
class Line:
    """A limit across all rows."""

    at: float
    style: str


@dataclass(frozen=True)
class Tile:
    """One small drawing of `rows` rows."""

    rows: int
    bars: tuple[Bar, ...] = ()
    intervals: tuple[Interval, ...] = ()
    lines: tuple[Line, ...] = ()
    width: int = WIDTH

    @property
    def height(self) -> int:
        """Height in the drawing's units."""
        return self.rows * _ROW + 4


def latency_tile(report: Report) -> Tile:
    """Returns both latencies as bars, with the budget as a line."""
    values = [at_percentile(n.latency, report.budget.percentile) for n in _networks(report)]
    scale = Scale(0.0, max(*values, min(report.budget.milliseconds, 2 * max(values))) * 1.02, 0, WIDTH)
    budget = report.budget.milliseconds
    return Tile(
        rows=len(values),
        bars=tuple(Bar(_y(row) - 5, scale(value), ("base", "result")[row]) for row, value in enumerate(values)),
        lines=(Line(scale(budget), "budget"),) if budget <= scale.high else (),
    )


def speedup_tile(report: Report) -> Tile:
    """Returns the speed-up's interval on an axis that starts at no gain."""
    speedup = report.speedup
    scale = Scale(*padded([1.0, speedup.low, speedup.high, speedup.value]), 2, WIDTH - 2)
    return Tile(
        rows=2,
        intervals=(_interval(scale, 0.5, (speedup.value, speedup.low, speedup.high), "result"),),
        lines=(Line(scale(1.0), "none"),),
    )


def accuracy_tile(report: Report) -> Tile | None:
    """Returns both accuracies' intervals, with the floor as a line; None where neither was measured."""
    known = [(row, n.accuracy) for row, n in enumerate(_networks(report)) if n.accuracy is not None]
    if not known:
        return None
    floor: Sequence[float] = () if report.accuracy_floor is None else (report.accuracy_floor,)
    ends = [value for _, accuracy in known for value in (accuracy.low, accuracy.high)]
    scale = Scale(*padded([*ends, *floor], least=1e-3), 2, WIDTH - 2)
    return Tile(
        rows=len(_networks(report)),
        intervals=tuple(
            _interval(scale, row, (accuracy.top1, accuracy.low, accuracy.high), ("base", "result")[row])
            for row, accuracy in known
        ),
        lines=tuple(Line(scale(value), "floor") for value in floor),
    )


def quality_tile(report: Report, floor: float | None) -> Tile | None:
    """Returns both networks' figures with the intervals that are known; None where none can be drawn.

    Args:
        report: What to draw.
        floor: Worst acceptable value of the report's figure, None for any.
    """
    known = [(row, n.quality) for row, n in enumerate(_networks(report)) if n.quality is not None]
    rows = [
        (row, (q.value, q.value if q.low is None else q.low, q.value if q.high is None else q.high))
        for row, q in known
        if math.isfinite(q.value)
    ]
    if not rows:
        return None
    lines = () if floor is None or known[0][1].figure != report.figure else (floor,)
    ends = [value for _, values in rows for value in values]
    scale = Scale(*padded([*ends, *lines], least=1e-3 * max(map(abs, ends)) + 1e-12), 2, WIDTH - 2)
    return Tile(
        rows=len(_networks(report)),
        intervals=tuple(_interval(scale, row, values, ("base", "result")[row]) for row, values in rows),
        lines=tuple(Line(scale(value), "floor") for value in lines),
    )


def _networks(report: Report) -> list[NetworkReport]:
    same = report.baseline.sha256 == report.result.sha256
    return [report.baseline] if same else [report.baseline, report.result]


def _interval(scale: Scale, row: float, values: tuple[float, float, float], style: str) -> Interval:
    at, low, high = (scale(value) for value in values)
    return Interval(_y(row), at, low, high, style)


def _y(row: float) -> float:
    return _ROW * row + _ROW / 2 + 2
