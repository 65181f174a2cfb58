"""Where work and time are: one bar per operator, the original above the line and the result below it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.report import formats

if TYPE_CHECKING:
    from service.report.alignment import Row, Run
    from service.report.schema import LayerReport

WIDTH: Final = 1040
HALF: Final = 64
_GAP = 0.18


@dataclass(frozen=True)
class Bar:
    """One operator of one network."""

    x: float
    y: float
    width: float
    height: float
    style: str
    title: str


@dataclass(frozen=True)
class Measure:
    """What the height of a bar stands for.

    Attributes:
        what: In words.
        of: Its value of a layer; 0 where there is none.
        said: A value with its unit.
    """

    what: str
    of: Callable[[LayerReport], float]
    said: Callable[[float], str]


WORK: Final = Measure(
    "multiply-accumulates", lambda layer: layer.macs, lambda value: f"{formats.amount(round(value))} MACs"
)
TIME: Final = Measure("time", lambda layer: layer.milliseconds or 0.0, formats.milliseconds)


@dataclass(frozen=True)
class Profile:
    """The drawing: bars, and what a full half stands for."""

    bars: tuple[Bar, ...]
    what: str
    peak: str
    styles: frozenset[str]
    width: int = WIDTH
    half: int = HALF


def profile(runs: Sequence[Run], measure: Measure = WORK) -> Profile | None:
    """Returns a bar per operator that has a value; None where there is none."""
    rows = [row for run in runs for row in run.rows if any(layer and measure.of(layer) for layer in sides(row))]
    peak = max((measure.of(layer) for row in rows for layer in sides(row) if layer), default=0)
    if not peak:
        return None
    pitch = WIDTH / max(len(rows), 24)
    bars = [bar for index, row in enumerate(rows) for bar in _bars(row, (index * pitch, pitch), peak, measure)]
    return Profile(tuple(bars), measure.what, measure.said(peak), frozenset(bar.style for bar in bars))


def sides(row: Row) -> tuple[LayerReport | None, LayerReport | None]:
    """Returns both layers of a line."""
    return row.before, row.after


def _bars(row: Row, place: tuple[float, float], peak: float, measure: Measure) -> list[Bar]:
    both = (
        (row.before, "cut" if row.changed else "base", True),
        (row.after, "new" if row.changed else "result", False),
    )
    return [
        _bar(f"{layer.name} ({layer.op}): {measure.said(measure.of(layer))}", place, (height, style), up=up)
        for layer, style, up in both
        if layer is not None and (height := HALF * measure.of(layer) / peak)
    ]


def _bar(title: str, place: tuple[float, float], drawn: tuple[float, str], *, up: bool) -> Bar:
    (x, pitch), (height, style) = place, drawn
    height = max(1.0, round(height, 1))
    said = {"cut": ", cut", "new": ", new"}.get(style, "")
    return Bar(
        x=round(x + pitch * _GAP / 2, 2),
        y=round(HALF - height, 1) if up else HALF + 2,
        width=round(pitch * (1 - _GAP), 2),
        height=height,
        style=style,
        title=f"{title}{said}",
    )
