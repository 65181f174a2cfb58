"""The drawing of a batch as coordinates: speed-up against change of accuracy, a mark with its intervals per model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.report import formats
from service.report.axes import Scale, Tick, padded

if TYPE_CHECKING:
    from service.batch.outcome import Measured, ModelOutcome

WIDTH: Final = 760
HEIGHT: Final = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 20, 30, 46
_STRIP: Final = 26
_LEAST_POINTS: Final = 0.5
_LEAST_SPEED: Final = 0.1


@dataclass(frozen=True)
class Frame:
    """The axes."""

    x: Scale
    y: Scale
    x_title: str = "speed-up"
    y_title: str = "change of accuracy in points"
    width: int = WIDTH
    height: int = HEIGHT

    @property
    def x_ticks(self) -> list[Tick]:
        """Marks of the horizontal axis."""
        return self.x.ticks(8)

    @property
    def y_ticks(self) -> list[Tick]:
        """Marks of the vertical axis."""
        return self.y.ticks(5)


@dataclass(frozen=True)
class Mark:
    """One model.

    Attributes:
        number: Its row in the table.
        x: Coordinate of its speed-up.
        y: Coordinate of its change, or in the strip below.
        across: Ends of the interval of its speed-up; None without.
        up: Ends of the interval of its change; None without.
        style: `result` where the budget was met, else `base`.
        known: Whether its change is known.
        title: All about it in words.
    """

    number: int
    x: float
    y: float
    across: tuple[float, float] | None
    up: tuple[float, float] | None
    style: str
    known: bool
    title: str


@dataclass(frozen=True)
class Plot:
    """The drawing.

    Attributes:
        frame: Its axes.
        marks: The models.
        same_speed: Coordinate of a speed-up of 1.
        same_accuracy: Coordinate of no change.
        strip: Coordinate of models whose change is not known; None where there are none.
    """

    frame: Frame
    marks: tuple[Mark, ...]
    same_speed: float
    same_accuracy: float
    strip: float | None


def draw(models: Sequence[ModelOutcome]) -> Plot | None:
    """Returns the drawing of models, numbered from 1 in their order; None where none has a speed-up."""
    shown = [(number, one, one.speedup) for number, one in enumerate(models, start=1) if one.speedup is not None]
    if not shown:
        return None
    changes = {number: change for number, one, _ in shown if (change := _change(one)) is not None}
    strip = HEIGHT - _BOTTOM - 10 if len(changes) < len(shown) else None
    speeds = [end for _, _, speedup in shown for end in _ends(speedup)]
    points = [end for change in changes.values() for end in _ends(change)]
    axes = Frame(
        Scale(*padded([1.0, *speeds], 0.06, _LEAST_SPEED), _LEFT, WIDTH - _RIGHT),
        Scale(*padded([0.0, *points], 0.1, _LEAST_POINTS), HEIGHT - _BOTTOM - (_STRIP if strip else 0), _TOP),
    )
    marks = tuple(_mark(number, one, speedup, changes.get(number), axes) for number, one, speedup in shown)
    return Plot(axes, marks, axes.x(1.0), axes.y(0.0), strip)


def _change(outcome: ModelOutcome) -> Measured | None:
    """Returns the change in points, so that more is better; None for figures that are no fractions."""
    quality = outcome.quality
    if quality is None or quality.unit != "fraction" or not quality.higher_is_better:
        return None
    return quality.change


def _ends(measured: Measured) -> list[float]:
    return [end for end in (measured.value, measured.low, measured.high) if end is not None]


def _mark(number: int, outcome: ModelOutcome, speedup: Measured, change: Measured | None, axes: Frame) -> Mark:
    return Mark(
        number=number,
        x=axes.x(speedup.value),
        y=axes.y(change.value) if change is not None else HEIGHT - _BOTTOM - 10,
        across=_whisker(speedup, axes.x),
        up=_whisker(change, axes.y) if change is not None else None,
        style="result" if outcome.improved else "base",
        known=change is not None,
        title=_title(outcome, speedup, change),
    )


def _whisker(measured: Measured, scale: Scale) -> tuple[float, float] | None:
    if measured.low is None or measured.high is None:
        return None
    return scale(measured.low), scale(measured.high)


def _title(outcome: ModelOutcome, speedup: Measured, change: Measured | None) -> str:
    quality = outcome.quality
    said = "accuracy not known"
    if change is not None and quality is not None:
        said = formats.points(quality.before.value, quality.after.value, quality.count)
    return f"{outcome.label}: {formats.factor(speedup.value)}, {said}"
