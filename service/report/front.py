"""The accuracy-latency front: every network that was tried, and what was validated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from service.report import formats
from service.report.axes import padded
from service.report.charts import Frame, at_percentile, frame
from service.report.figures import axis_title, on_axis, value_text
from service.report.schema import FigureReport

if TYPE_CHECKING:
    from service.report.schema import CandidateReport, NetworkReport, Report

Axis = Literal["accuracy", "quality", "agreement", "divergence"]

_SHOWN_POINTS = 25.0
_SHOWN_TIMES = 3.0
_ACCURACY: Final = FigureReport()
_AGREEMENT: Final = FigureReport(name="agreement with the original")


@dataclass(frozen=True)
class _Measure:
    """What the vertical axis shows, and how it is written."""

    axis: Axis
    figure: FigureReport
    title: str

    @property
    def lower(self) -> bool:
        """Whether less is better: the axis is turned over then, so that better is always up."""
        return not self.figure.higher_is_better

    def of(self, candidate: CandidateReport) -> float | None:
        """Returns a candidate's value on the axis; None where there is none that can be drawn."""
        value = {
            "accuracy": candidate.selection_accuracy,
            "quality": candidate.selection_quality,
            "agreement": candidate.selection_agreement,
            "divergence": candidate.divergence,
        }[self.axis]
        return None if value is None or not math.isfinite(value) else on_axis(self.figure, value)

    def place(self, axes: Frame, value: float) -> float:
        """Returns the coordinate of a value; one that is far worse than all others is drawn at the edge."""
        return axes.y.clamped(value)


@dataclass(frozen=True)
class Point:
    """One network at one pair of coordinates.

    Attributes:
        x: Coordinate of its latency.
        y: Coordinate of its score.
        shape: `circle`, `triangle` (fine-tuned) or `diamond` (on the validation samples).
        style: `tried`, `chosen`, `base` or `result`.
        hollow: The latency is only predicted.
        low: Coordinate of the lower end of the score's interval, None without.
        high: Coordinate of the upper end.
        beyond: Whether it lies below the drawing and is drawn at its edge.
        title: All about it in words.
    """

    x: float
    y: float
    shape: Literal["circle", "triangle", "diamond"]
    style: str
    title: str
    hollow: bool = False
    low: float | None = None
    high: float | None = None
    beyond: bool = False


@dataclass(frozen=True)
class Front:
    """The drawing.

    Attributes:
        axis: What the vertical axis shows.
        frame: Its axes.
        points: What was tried and, on the axis of the task's figure, what was validated.
        path: Line through the best measured networks: none is faster and better.
        budget: Coordinate of the budget, None where it lies outside.
        floor: Coordinate of the floor, None without.
        beyond: How many networks lie below the drawing.
        predicted: Whether any latency is only predicted.
        tuned: Whether any network was fine-tuned.
    """

    axis: Axis
    frame: Frame
    points: tuple[Point, ...]
    path: str
    budget: float | None
    floor: float | None
    beyond: int
    predicted: bool
    tuned: bool


def front(report: Report) -> Front | None:
    """Returns the drawing; None where nothing was tried that has a latency and a score."""
    measure = _measure(report.candidates, report.figure, report.divergence_unit)
    tried = [c for c in report.candidates if _latency(c) is not None and measure.of(c) is not None]
    if not tried:
        return None
    axes = _frame(report, tried, measure)
    points = [_point(candidate, measure, axes) for candidate in tried] + _references(report, measure, axes)
    budget = report.budget.milliseconds
    return Front(
        axis=measure.axis,
        frame=axes,
        points=tuple(sorted(points, key=lambda point: (point.shape == "diamond", point.style == "chosen"))),
        path=_best_path(best_measured(tried, report.figure), measure, axes),
        budget=axes.x(budget) if axes.x.low <= budget <= axes.x.high else None,
        floor=_floor(report, measure, axes),
        beyond=sum(point.beyond for point in points),
        predicted=any(point.hollow for point in points),
        tuned=any(candidate.tuned for candidate in tried),
    )


def floor_of(report: Report) -> float | None:
    """Returns the worst acceptable value of the report's figure; None for any."""
    return report.accuracy_floor if report.quality_floor is None else report.quality_floor


def _floor(report: Report, measure: _Measure, axes: Frame) -> float | None:
    floor = floor_of(report)
    if floor is None or measure.axis not in ("accuracy", "quality"):
        return None
    value = on_axis(measure.figure, floor)
    low, high = sorted((axes.y.low, axes.y.high))
    return axes.y(value) if low <= value <= high else None


def _measure(candidates: Sequence[CandidateReport], figure: FigureReport, unit: str = "nats") -> _Measure:
    if any(c.selection_accuracy is not None for c in candidates):
        return _Measure("accuracy", _ACCURACY, "top-1 in %")
    if any(c.selection_quality is not None for c in candidates):
        return _Measure("quality", figure, axis_title(figure))
    if any(c.selection_agreement is not None for c in candidates):
        return _Measure("agreement", _AGREEMENT, axis_title(_AGREEMENT))
    divergence = FigureReport(name="divergence from the original", unit=unit, higher_is_better=False)
    return _Measure("divergence", divergence, axis_title(divergence))


def _latency(candidate: CandidateReport) -> float | None:
    return candidate.latency_ms if candidate.latency_ms is not None else candidate.predicted_ms


def _frame(report: Report, tried: Sequence[CandidateReport], measure: _Measure) -> Frame:
    times = [value for c in tried if (value := _latency(c)) is not None]
    times += [at_percentile(network.latency, report.budget.percentile) for network in _networks(report)]
    if min(times) / 3 < report.budget.milliseconds < 2 * max(times):
        times.append(report.budget.milliseconds)
    scores = [value for c in tried if (value := measure.of(c)) is not None]
    scores += [end for value in _validated(report, measure).values() for end in value]
    titles = ("latency in ms", measure.title)
    if measure.lower:
        best = min(scores)
        # Nothing is left of a task that a network does many times worse; drawn to scale it would hide all others.
        near = [value for value in scores if value <= _SHOWN_TIMES * best] if best > 0 else [0.0, *scores]
        up = padded(near if measure.axis == "quality" else [0.0, *scores], 0.08)
        return frame(padded(times, 0.08), (up[1], up[0]), titles, rows=1)
    if measure.axis == "agreement":
        scores.append(100.0)
    shown = [value for value in scores if value >= max(scores) - _SHOWN_POINTS]
    low, high = padded(shown, 0.1, least=0.05)
    return frame(padded(times, 0.08), (low, min(high, 100.6)), titles, rows=1)


def _networks(report: Report) -> list[NetworkReport]:
    same = report.baseline.sha256 == report.result.sha256
    return [report.baseline] if same else [report.baseline, report.result]


def _validated(report: Report, measure: _Measure) -> dict[str, tuple[float, float, float]]:
    """Returns value and ends of the interval of the validated files, by style, as the axis counts."""
    found = {}
    for style, network in zip(("base", "result"), _networks(report), strict=False):
        values: tuple[float, float | None, float | None] | None = None
        if measure.axis == "accuracy" and network.accuracy is not None:
            values = (network.accuracy.top1, network.accuracy.low, network.accuracy.high)
        elif measure.axis == "quality" and network.quality is not None and network.quality.figure == measure.figure:
            values = (network.quality.value, network.quality.low, network.quality.high)
        if values is not None and math.isfinite(values[0]):
            at, low, high = (on_axis(measure.figure, values[0] if end is None else end) for end in values)
            found[style] = (at, low, high)
    return found


def _point(candidate: CandidateReport, measure: _Measure, axes: Frame) -> Point:
    latency, score = _latency(candidate), measure.of(candidate)
    assert latency is not None
    assert score is not None
    measured = candidate.latency_ms is not None
    return Point(
        x=axes.x(latency),
        y=measure.place(axes, score),
        shape="triangle" if candidate.tuned else "circle",
        style="chosen" if candidate.chosen else "tried",
        title=f"{candidate.label}: {formats.milliseconds(latency)} {'measured' if measured else 'predicted'}, "
        f"{_said(measure, score)} on the held-back samples{', returned' if candidate.chosen else ''}",
        hollow=not measured,
        beyond=score > axes.y.low if measure.lower else score < axes.y.low,
    )


def _said(measure: _Measure, value: float, count: int | None = None) -> str:
    fraction = measure.figure.unit == _ACCURACY.unit
    text = value_text(measure.figure, value / 100 if fraction else value, count)
    return text if fraction else f"{text} ({measure.figure.unit})"


def _references(report: Report, measure: _Measure, axes: Frame) -> list[Point]:
    """Returns the shipped files on the validation samples or, where nothing was, where the original is."""

    def place(network: NetworkReport) -> float:
        return axes.x.clamped(at_percentile(network.latency, report.budget.percentile))

    if measure.axis in ("agreement", "divergence"):
        at = axes.y(100.0 if measure.axis == "agreement" else 0.0)
        return [Point(place(report.baseline), at, "diamond", "base", "the original, by definition")]
    points = []
    networks = dict(zip(("base", "result"), _networks(report), strict=False))
    for style, (at, low, high) in _validated(report, measure).items():
        network = networks[style]
        judged = network.accuracy if measure.axis == "accuracy" else network.quality
        said = _said(measure, at, None if judged is None else judged.count)
        points.append(
            Point(
                place(network),
                measure.place(axes, at),
                "diamond",
                style,
                f"the {'original' if style == 'base' else 'result'} on the validation samples: {said}",
                low=measure.place(axes, low),
                high=measure.place(axes, high),
            )
        )
    return points


def best_measured(candidates: Sequence[CandidateReport], figure: FigureReport = _ACCURACY) -> list[CandidateReport]:
    """Returns the measured networks that no other beats in both latency and score, fastest first.

    Args:
        candidates: Networks that were tried.
        figure: What their `selection_quality` is.
    """
    measure = _measure(candidates, figure)

    def goodness(candidate: CandidateReport) -> float:
        score = measure.of(candidate)
        assert score is not None
        return -score if measure.lower else score

    best: list[CandidateReport] = []
    best_score = -float("inf")
    measured = [c for c in candidates if c.latency_ms is not None and measure.of(c) is not None]
    for candidate in sorted(measured, key=lambda c: (c.latency_ms or 0, -goodness(c))):
        if goodness(candidate) > best_score:
            best.append(candidate)
            best_score = goodness(candidate)
    return best


def _best_path(best: Sequence[CandidateReport], measure: _Measure, axes: Frame) -> str:
    path = ""
    for candidate in best:
        x, y = axes.x(candidate.latency_ms or 0), measure.place(axes, measure.of(candidate) or 0)
        path += f"H{x}V{y}" if path else f"M{x} {y}"
    return path if len(best) > 1 else ""
