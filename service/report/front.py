"""The accuracy-latency front: every network that was tried, and what was validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from service.report import formats
from service.report.axes import padded
from service.report.charts import Frame, at_percentile, frame

if TYPE_CHECKING:
    from service.report.schema import CandidateReport, NetworkReport, Report

Axis = Literal["accuracy", "agreement", "divergence"]

_SHOWN_POINTS = 25.0
_TITLES = {
    "accuracy": "top-1 in %",
    "agreement": "same top-1 as the original in %",
    "divergence": "divergence from the original in nats",
}


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
        points: What was tried and, on the accuracy axis, what was validated.
        path: Line through the best measured networks: none is faster and better.
        budget: Coordinate of the budget, None where it lies outside.
        floor: Coordinate of the accuracy floor, None without.
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
    axis = _axis(report.candidates)
    tried = [c for c in report.candidates if _latency(c) is not None and _score(c, axis) is not None]
    if not tried:
        return None
    axes = _frame(report, tried, axis)
    points = [_point(candidate, axis, axes) for candidate in tried] + _references(report, axis, axes)
    budget, floor = report.budget.milliseconds, report.accuracy_floor
    floor_shown = axis == "accuracy" and floor is not None and axes.y.low <= 100 * floor <= axes.y.high
    return Front(
        axis=axis,
        frame=axes,
        points=tuple(sorted(points, key=lambda point: (point.shape == "diamond", point.style == "chosen"))),
        path=_best_path(tried, axis, axes),
        budget=axes.x(budget) if axes.x.low <= budget <= axes.x.high else None,
        floor=axes.y(100 * floor) if floor_shown and floor is not None else None,
        beyond=sum(point.beyond for point in points),
        predicted=any(point.hollow for point in points),
        tuned=any(candidate.tuned for candidate in tried),
    )


def _axis(candidates: Sequence[CandidateReport]) -> Axis:
    if any(c.selection_accuracy is not None for c in candidates):
        return "accuracy"
    return "agreement" if any(c.selection_agreement is not None for c in candidates) else "divergence"


def _latency(candidate: CandidateReport) -> float | None:
    return candidate.latency_ms if candidate.latency_ms is not None else candidate.predicted_ms


def _score(candidate: CandidateReport, axis: Axis) -> float | None:
    """Returns the value on the vertical axis: percent, or nats."""
    if axis == "divergence":
        return candidate.divergence
    value = candidate.selection_accuracy if axis == "accuracy" else candidate.selection_agreement
    return None if value is None else 100 * value


def _frame(report: Report, tried: Sequence[CandidateReport], axis: Axis) -> Frame:
    times = [value for c in tried if (value := _latency(c)) is not None]
    times += [at_percentile(network.latency, report.budget.percentile) for network in _networks(report)]
    if min(times) / 3 < report.budget.milliseconds < 2 * max(times):
        times.append(report.budget.milliseconds)
    scores = [value for c in tried if (value := _score(c, axis)) is not None]
    if axis == "accuracy":
        validated = [n.accuracy for n in _networks(report) if n.accuracy is not None]
        scores += [100 * value for accuracy in validated for value in (accuracy.low, accuracy.high)]
    if axis == "agreement":
        scores.append(100.0)
    if axis == "divergence":
        up = padded([0.0, *scores], 0.08)
        # Lower is better: the axis is turned over, so that better is up, as on the other two.
        return frame(padded(times, 0.08), (up[1], up[0]), ("latency in ms", _TITLES[axis]), rows=1)
    shown = [value for value in scores if value >= max(scores) - _SHOWN_POINTS]
    low, high = padded(shown, 0.1, least=0.05)
    return frame(padded(times, 0.08), (low, min(high, 100.6)), ("latency in ms", _TITLES[axis]), rows=1)


def _networks(report: Report) -> list[NetworkReport]:
    same = report.baseline.sha256 == report.result.sha256
    return [report.baseline] if same else [report.baseline, report.result]


def _point(candidate: CandidateReport, axis: Axis, axes: Frame) -> Point:
    latency, score = _latency(candidate), _score(candidate, axis)
    assert latency is not None
    assert score is not None
    measured = candidate.latency_ms is not None
    below = axis != "divergence" and score < axes.y.low
    said = formats.percent(score / 100) if axis != "divergence" else f"{formats.significant(score)} nats"
    return Point(
        x=axes.x(latency),
        y=axes.y.clamped(score) if axis != "divergence" else axes.y(score),
        shape="triangle" if candidate.tuned else "circle",
        style="chosen" if candidate.chosen else "tried",
        title=f"{candidate.label}: {formats.milliseconds(latency)} {'measured' if measured else 'predicted'}, "
        f"{said} on the held-back samples{', returned' if candidate.chosen else ''}",
        hollow=not measured,
        beyond=below,
    )


def _references(report: Report, axis: Axis, axes: Frame) -> list[Point]:
    """Returns the shipped files on the validation samples or, without accuracies, where the original is."""

    def place(network: NetworkReport) -> float:
        return axes.x.clamped(at_percentile(network.latency, report.budget.percentile))

    if axis != "accuracy":
        at = axes.y(100.0 if axis == "agreement" else 0.0)
        return [Point(place(report.baseline), at, "diamond", "base", "the original, by definition")]
    points = []
    for style, network in zip(("base", "result"), _networks(report), strict=False):
        accuracy = network.accuracy
        if accuracy is None:
            continue
        name = "original" if style == "base" else "result"
        points.append(
            Point(
                place(network),
                axes.y.clamped(100 * accuracy.top1),
                "diamond",
                style,
                f"the {name} on the validation samples: {formats.percent(accuracy.top1, accuracy.count)}",
                low=axes.y.clamped(100 * accuracy.low),
                high=axes.y.clamped(100 * accuracy.high),
            )
        )
    return points


def best_measured(candidates: Sequence[CandidateReport]) -> list[CandidateReport]:
    """Returns the measured networks that no other beats in both latency and score, fastest first."""
    axis = _axis(candidates)
    best: list[CandidateReport] = []
    best_score = -float("inf")
    measured = [c for c in candidates if c.latency_ms is not None and _score(c, axis) is not None]
    for candidate in sorted(measured, key=lambda c: (c.latency_ms or 0, -_goodness(c, axis))):
        if _goodness(candidate, axis) > best_score:
            best.append(candidate)
            best_score = _goodness(candidate, axis)
    return best


def _goodness(candidate: CandidateReport, axis: Axis) -> float:
    score = _score(candidate, axis) or 0.0
    return -score if axis == "divergence" else score


def _best_path(tried: Sequence[CandidateReport], axis: Axis, axes: Frame) -> str:
    best = best_measured(tried)
    path = ""
    for candidate in best:
        x, score = axes.x(candidate.latency_ms or 0), _score(candidate, axis) or 0
        y = axes.y.clamped(score) if axis != "divergence" else axes.y(score)
        path += f"H{x}V{y}" if path else f"M{x} {y}"
    return path if len(best) > 1 else ""
