"""The drawings of a report as coordinates; `charts.svg.j2` turns them into SVG.

They are narrow, so that their text stays readable on a telephone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from service.report import formats
from service.report.axes import Scale, Tick, padded
from service.report.figures import axis_title, on_axis

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.report.schema import BudgetReport, FigureReport, LatencyReport, Report, TuningReport

WIDTH: Final = 520
HEIGHT: Final = 330
CURVE_SIZE: Final = (340, 230)
LEFT, RIGHT, TOP, BOTTOM = 50, 16, 34, 46
_LABEL_ROW = 15
_LETTER = 7.4

_BINS = 72


@dataclass(frozen=True)
class Frame:
    """The axes of one drawing."""

    x: Scale
    y: Scale
    x_title: str
    y_title: str
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def x_ticks(self) -> list[Tick]:
        """Marks of the horizontal axis."""
        return self.x.ticks(self.width // 80)

    @property
    def y_ticks(self) -> list[Tick]:
        """Marks of the vertical axis."""
        return self.y.ticks(5)


def frame(
    x: tuple[float, float],
    y: tuple[float, float],
    titles: tuple[str, str],
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rows: int = 0,
) -> Frame:
    """Returns axes over the given ranges, with room for so many rows of labels above them."""
    across, up = Scale(*x, LEFT, size[0] - RIGHT), Scale(*y, size[1] - BOTTOM, TOP + _LABEL_ROW * rows)
    return Frame(across, up, *titles, *size)


@dataclass(frozen=True)
class Rule:
    """A labelled vertical line; `row` 0 is the upper row of labels."""

    at: float
    text: str
    style: str
    row: int
    anchor: str


@dataclass(frozen=True)
class Hump:
    """One histogram as an outline."""

    style: str
    path: str


@dataclass(frozen=True)
class Distributions:
    """Latency histograms over one axis."""

    frame: Frame
    humps: tuple[Hump, ...]
    rules: tuple[Rule, ...]
    left_out: tuple[str, ...]


def distributions(report: Report) -> Distributions | None:
    """Returns the latencies of original and result over one axis; None where no times were kept."""
    networks = [("base", "original", report.baseline.latency)]
    if report.result.sha256 != report.baseline.sha256:
        networks.append(("result", "result", report.result.latency))
    if not all(latency.samples_ms for _, _, latency in networks):
        return None
    low, high = _time_range([latency for _, _, latency in networks], report.budget)
    edges = np.linspace(low, high, _BINS + 1)
    shares = [np.histogram(latency.samples_ms, edges)[0] / len(latency.samples_ms) for _, _, latency in networks]
    top = 1.08 * max(float(share.max()) for share in shares)
    name = formats.percentile(report.budget.percentile)
    axes = frame(
        (low, high), (0.0, 100 * max(top, 1e-6)), ("latency in ms", f"share of runs in %, lines at {name}"), rows=2
    )
    humps = tuple(
        Hump(style, _outline(axes, edges, share)) for (style, _, _), share in zip(networks, shares, strict=True)
    )
    return Distributions(axes, humps, _time_rules(report, axes, networks), _left_out(networks, high, report, low))


def _time_range(latencies: Sequence[LatencyReport], budget: BudgetReport) -> tuple[float, float]:
    ends = [min(latency.samples_ms) for latency in latencies]
    ends += [float(np.quantile(latency.samples_ms, 0.985)) for latency in latencies]
    ends += [at_percentile(latency, budget.percentile) for latency in latencies]
    # A budget that is far off must not squeeze everything else together.
    if min(ends) / 3 < budget.milliseconds < 2 * max(ends):
        ends.append(budget.milliseconds)
    return padded(ends, 0.08)


def _outline(axes: Frame, edges: npt.NDArray[np.float64], shares: npt.NDArray[np.float64]) -> str:
    base = axes.y(0)
    parts = [f"M{axes.x(float(edges[0]))} {base}"]
    for left, right, share in zip(edges[:-1], edges[1:], shares, strict=True):
        height = axes.y(100 * float(share))
        parts.append(f"L{axes.x(float(left))} {height}L{axes.x(float(right))} {height}")
    return "".join(parts) + f"L{axes.x(float(edges[-1]))} {base}Z"


def _time_rules(report: Report, axes: Frame, networks: Sequence[tuple[str, str, LatencyReport]]) -> tuple[Rule, ...]:
    lines = [(report.budget.milliseconds, f"budget {formats.significant(report.budget.milliseconds)}", "budget")]
    for style, label, latency in networks:
        value = at_percentile(latency, report.budget.percentile)
        lines.append((value, f"{label} {formats.significant(value)}", style))
    shown = [(axes.x(value), text, style) for value, text, style in lines if axes.x.low <= value <= axes.x.high]
    places = [at for at, _, _ in shown]
    return tuple(
        Rule(at, text, style, row, _side(at, _LETTER * len(text), places, axes))
        for row, (at, text, style) in enumerate(shown)
    )


def _side(at: float, width: float, lines: Sequence[float], axes: Frame) -> str:
    """Returns on which side of its line a label crosses no other line, or has most room."""
    right = min([axes.x.end, *(line for line in lines if line > at)]) - at
    left = at - max([0.0, *(line for line in lines if line < at)])
    if max(left, right) >= width:
        return "start" if right >= width else "end"
    return "start" if axes.x.end - at >= at - axes.x.start else "end"


def _left_out(
    networks: Sequence[tuple[str, str, LatencyReport]], high: float, report: Report, low: float
) -> tuple[str, ...]:
    notes = []
    for _, label, latency in networks:
        beyond = sum(value > high for value in latency.samples_ms)
        if beyond:
            share = f"{beyond} of {len(latency.samples_ms)} runs of the {label}"
            notes.append(f"{share} lie further right (slowest {formats.milliseconds(max(latency.samples_ms))})")
    if not low <= report.budget.milliseconds <= high:
        notes.append(f"the budget of {formats.milliseconds(report.budget.milliseconds)} lies outside")
    return tuple(notes)


def at_percentile(latency: LatencyReport, percentile: float) -> float:
    """Returns a latency at a percentile; one that was not reported is read off the kept times."""
    known = {50.0: latency.p50, 90.0: latency.p90, 95.0: latency.p95, 99.0: latency.p99}
    if percentile in known:
        return known[percentile]
    return float(np.percentile(latency.samples_ms, percentile)) if latency.samples_ms else latency.p50


@dataclass(frozen=True)
class Mark:
    """One evaluation during fine-tuning."""

    x: float
    y: float
    kept: bool
    title: str


@dataclass(frozen=True)
class Curve:
    """A line over epochs."""

    frame: Frame
    path: str
    marks: tuple[Mark, ...]
    title: str


def curves(tuning: TuningReport, figure: FigureReport | None = None, divergence_unit: str = "nats") -> list[Curve]:
    """Returns how accuracy (where labelled) or the task's figure on the selection samples, divergence and loss went."""
    history = tuning.history
    accuracy = [entry.selection_accuracy for entry in history]
    quality = [entry.selection_quality for entry in history]
    drawn = []
    if history and all(value is not None for value in accuracy):
        drawn.append(_curve(tuning, [100 * (v or 0) for v in accuracy], "held-back top-1 in %"))
    elif figure is not None and history and all(value is not None for value in quality):
        drawn.append(_curve(tuning, [on_axis(figure, v or 0) for v in quality], f"held-back {axis_title(figure)}"))
    if history:
        drawn.append(_curve(tuning, [entry.divergence for entry in history], f"divergence in {divergence_unit}"))
        drawn.append(_curve(tuning, [entry.loss for entry in history], "training loss"))
    return drawn


def _curve(tuning: TuningReport, values: Sequence[float], title: str) -> Curve:
    epochs = [entry.epoch for entry in tuning.history]
    known = [value for value in values if np.isfinite(value)] or [0.0]
    axes = frame(padded([0.0, *epochs], 0.03), padded(known, 0.12), ("epoch", title), CURVE_SIZE)
    marks = tuple(
        Mark(
            axes.x(entry.epoch),
            axes.y(value),
            entry.kept,
            f"epoch {formats.significant(entry.epoch)}: {formats.significant(value, 4)}",
        )
        for entry, value in zip(tuning.history, values, strict=True)
        if np.isfinite(value)
    )
    path = "".join(f"{'L' if index else 'M'}{mark.x} {mark.y}" for index, mark in enumerate(marks))
    return Curve(axes, path, marks, title)
