"""How good a network is: the task's figure of merit, in its own unit, and the worst value of it that is acceptable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compressors.errors import OptionError
from compressors.tasks import (
    TASKS,
    Task,
    check_task,
    choose_task,
    is_class_scores,
    is_denoiser,
    judged_output,
)

if TYPE_CHECKING:
    import torch

    from compressors.graph import Edges
    from compressors.problem import Score
    from service.spec import JobSpec

FRACTION: Final = "fraction"
"""Unit of what lies in [0, 1] and is shown in percent."""


@dataclass(frozen=True)
class Figure:
    """What a number says about a network.

    Attributes:
        name: In the field's words.
        unit: `fraction`, or words that follow the number.
        higher_is_better: Which way is up.
    """

    name: str
    unit: str
    higher_is_better: bool

    def said(self, value: float) -> str:
        """Returns a value in words: `91.20%`, `0.0312 (mean squared error)`."""
        return f"{value:.2%}" if self.unit == FRACTION else f"{value:.4g} ({self.unit})"


AGREEMENT: Final = Figure("agreement with the original", FRACTION, higher_is_better=True)
RELATIVE_ERROR: Final = Figure("relative squared error", TASKS["none"].divergence_unit, higher_is_better=False)


@dataclass(frozen=True)
class Quality:
    """A figure of one network.

    Attributes:
        figure: Which.
        value: In its unit.
        count: On how many samples.
        low: Lower end of its 95 % interval, None where none is known.
        high: Upper end.
    """

    figure: Figure
    value: float
    count: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Goal:
    """What a job's networks are judged by.

    Attributes:
        task: What the outputs mean.
        floor: Worst acceptable value of the task's figure, None for any.
    """

    task: Task
    floor: float | None = None

    @property
    def figure(self) -> Figure:
        """The task's figure of merit; of a network that is only compared with the original, how far it is from it."""
        if self.task.name == "none":
            return RELATIVE_ERROR
        return Figure(self.task.metric_name, self.task.unit, self.task.higher_is_better)

    def of(self, score: Score) -> float | None:
        """Returns the task's figure out of a score; None where there was nothing to tell it on."""
        return score.divergence if self.task.name == "none" else score.metric

    def holds(self, value: float | None) -> bool:
        """Returns whether a value of the figure is acceptable; one that could not be told is."""
        if self.floor is None or value is None:
            return True
        return value >= self.floor if self.figure.higher_is_better else value <= self.floor

    def accepts(self, quality: Quality | None) -> bool:
        """Returns whether what was measured is acceptable; a figure that is not the task's says nothing about that."""
        return quality is None or quality.figure != self.figure or self.holds(quality.value)

    @property
    def bound(self) -> str:
        """The floor in words: `the floor of 91.00%`, `the limit of 0.03 (mean squared error)`."""
        assert self.floor is not None
        return f"the {'floor' if self.figure.higher_is_better else 'limit'} of {self.figure.said(self.floor)}"


def goal(spec: JobSpec, graph: Edges, targets: torch.Tensor) -> Goal:
    """Returns what a job's networks are judged by: by the task that it names, or that inputs, outputs and targets tell.

    Args:
        spec: What was asked for.
        graph: The network.
        targets: Of some of its samples, stacked.

    Raises:
        OptionError: The network cannot have the task, or its figure cannot have the floor.
    """
    task = choose_task(graph, targets) if spec.task is None else check_task(graph, targets, spec.task)
    figure = Goal(task).figure
    if spec.accuracy_floor is not None and task.name != "classification":
        raise OptionError(
            "accuracy_floor",
            f"accuracy_floor is for the task 'classification', and {graph.name} is judged by its {figure.name} (task "
            f"{task.name!r}, {figure.unit}, {'higher' if figure.higher_is_better else 'lower'} is better); "
            "give quality_floor in that unit, or the task.",
        )
    floor = spec.accuracy_floor if spec.quality_floor is None else spec.quality_floor
    if floor is not None and (not 0 < floor <= 1 if figure.unit == FRACTION else floor < 0):
        wanted = "in (0, 1]" if figure.unit == FRACTION else "at least 0"
        raise OptionError("quality_floor", f"quality_floor bounds the {figure.name} and must be {wanted}; got {floor}.")
    return Goal(task, floor)


def classes(graph: Edges, task: str | None) -> int | None:
    """Returns how many classes labels must be out of; None where labels mean nothing to the network.

    Args:
        graph: The network.
        task: What the caller says that it is for, None where nothing was said.
    """
    output = graph.outputs[judged_output(graph)]
    if task is None and (is_denoiser(graph) or not (is_class_scores(output) or output.shape in ((), (1,)))):
        return None
    return None if task in ("denoising", "none") else math.prod(output.shape)


def divergence_unit(goal: Goal, graph: Edges) -> str:
    """Returns what divergences are counted in; of several outputs, the mean is taken over what may be two units."""
    others = TASKS["none"].divergence_unit
    own = goal.task.divergence_unit
    if len(graph.outputs) == 1 or own == others:
        return own
    return f"{own} ({graph.outputs[judged_output(graph)].name}) and {others} (other outputs), their mean"
