"""Where the work is: one bar per operator, the original above the line and the result below it."""

from __future__ import annotations

from collections.abc import Sequence
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
class Profile:
    """The drawing: bars, and the work that a full half stands for."""

    bars: tuple[Bar, ...]
    peak: str
    styles: frozenset[str]
    width: int = WIDTH
    half: int = HALF


def profile(runs: Sequence[Run]) -> Profile | None:
    """Returns a bar per operator that multiplies; None where there is none."""
    rows = [row for run in runs for row in run.rows if any(layer and layer.macs for layer in (row.before, row.after))]
    peak = max((layer.macs for row in rows for layer in (row.before, row.after) if layer), default=0)
    if not peak:
        return None
    pitch = WIDTH / max(len(rows), 24)
    bars = [bar for index, row in enumerate(rows) for bar in _bars(row, index * pitch, pitch, peak)]
    return Profile(tuple(bars), formats.amount(peak), frozenset(bar.style for bar in bars))


def _bars(row: Row, x: float, pitch: float, peak: int) -> list[Bar]:
    sides = (
        (row.before, "cut" if row.changed else "base", True),
        (row.after, "new" if row.changed else "result", False),
    )
    return [
        _bar(layer, (x, pitch), HALF * layer.macs / peak, style, up=up)
        for layer, style, up in sides
        if layer is not None and layer.macs
    ]


def _bar(layer: LayerReport, place: tuple[float, float], height: float, style: str, *, up: bool) -> Bar:
    x, pitch = place
    height = max(1.0, round(height, 1))
    said = {"cut": ", cut", "new": ", new"}.get(style, "")
    return Bar(
        x=round(x + pitch * _GAP / 2, 2),
        y=round(HALF - height, 1) if up else HALF + 2,
        width=round(pitch * (1 - _GAP), 2),
        height=height,
        style=style,
        title=f"{layer.name} ({layer.op}): {formats.amount(layer.macs)} MACs{said}",
    )
