"""Figures of merit as the report tells them: from the service's own values, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.report import formats
from service.report.schema import EpochReport, FigureReport, InputReport, QualityReport, TuningReport

if TYPE_CHECKING:
    from compressors.graph import Graph
    from compressors.tune import Tuned
    from service.judging.quality import Figure, Goal, Quality

_FRACTION = "fraction"


def describe_inputs(graph: Graph) -> tuple[InputReport, ...]:
    """Returns every input of a network."""
    return tuple(
        InputReport(name=spec.name, shape=spec.shape, dtype=str(spec.dtype).removeprefix("torch."))
        for spec in graph.inputs
    )


def describe_figure(figure: Figure) -> FigureReport:
    """Returns what a figure is."""
    return FigureReport(name=figure.name, unit=figure.unit, higher_is_better=figure.higher_is_better)


def describe_quality(quality: Quality) -> QualityReport:
    """Returns a figure of one network."""
    figure = describe_figure(quality.figure)
    return QualityReport(figure=figure, value=quality.value, low=quality.low, high=quality.high, count=quality.count)


def describe_tuning(tuned: Tuned, goal: Goal) -> TuningReport:
    """Returns how a network was fine-tuned."""
    return TuningReport(
        epochs=tuned.history[-1].epoch,
        learning_rate=tuned.learning_rate,
        learning_rates_tried=tuple(tuned.trials),
        precision=tuned.precision,
        seconds=tuned.history[-1].seconds,
        history=tuple(
            EpochReport(
                epoch=entry.epoch,
                loss=entry.loss,
                selection_accuracy=entry.score.accuracy,
                divergence=entry.score.divergence,
                kept=entry.score == tuned.after,
                selection_quality=goal.of(entry.score),
            )
            for entry in tuned.history
        ),
    )


def value_text(figure: FigureReport, value: float | None, count: int | None = None) -> str:
    """Returns a value without the figure's name: percent, or as it is."""
    if value is None:
        return formats.NOTHING
    return formats.percent(value, count) if figure.unit == _FRACTION else formats.significant(value)


def change_text(figure: FigureReport, before: float, after: float, count: int | None = None) -> str:
    """Returns how a figure changed: in points, or relative to the original's."""
    if figure.unit == _FRACTION:
        return formats.points(before, after, count)
    change = formats.change(before, after)
    return "no change" if change == "same" else f"{formats.significant(after - before)} ({change})"


def axis_title(figure: FigureReport) -> str:
    """Returns what an axis of the figure says."""
    return f"{figure.name} in %" if figure.unit == _FRACTION else f"{figure.name} ({figure.unit})"


def on_axis(figure: FigureReport, value: float) -> float:
    """Returns a value as an axis of the figure counts: in percent where it is a fraction."""
    return 100 * value if figure.unit == _FRACTION else value
