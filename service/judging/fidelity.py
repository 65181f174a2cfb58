"""When a network in another precision is as good as before: by the floor, else by how little it lost.

Without a floor that is

* where samples have targets: the task's figure at most half a point (0.005) worse than that of the float32 file of
  the same network, or, where the figure is no fraction, at most 1 % worse;
* without targets, for networks that decide: 99 % of the decisions as those of the float32 file;
* for any other: a squared error of at most 1 % of the variance of the float32 file's outputs.

All of it on selection samples, so that the choice costs the report's validation samples nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import torch
from torch.utils.data import Dataset

from compressors.batches import count, fetch
from service.judging.quality import FRACTION, Goal
from service.judging.scoring import Scorer

if TYPE_CHECKING:
    from compressors.graph import Graph
    from compressors.problem import Sample, Samples, Score
    from deploy.bench import Bench

JUDGED_ON: Final = 2048
"""At most so many selection samples; half a point is then ten samples."""

LOST_POINTS: Final = 0.005
LOST_SHARE: Final = 0.01
EQUAL_DECISIONS: Final = 0.99
SQUARED_ERROR: Final = 0.01

_DECIDING: Final = frozenset({"classification", "multi_label"})


@final
class _First(Dataset["Sample"]):
    """The first so many of some samples."""

    def __init__(self, samples: Samples, most: int) -> None:
        self._samples, self._count = samples, min(most, count(samples))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def batch(self, indices: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        found = fetch(self._samples, indices)
        return found.inputs, found.labels


def comparer(graph: Graph, plain: Path, samples: Samples, goal: Goal, bench: Bench) -> Scorer:
    """Returns what compares files with the float32 file of the same network.

    Args:
        graph: The network; says what inputs and outputs are.
        plain: Its float32 file.
        samples: Selection samples; the first `JUDGED_ON` of them count.
        goal: What counts.
        bench: What runs the files.
    """
    return Scorer(graph, plain, _First(samples, JUDGED_ON), goal, bench)


def shortfall(goal: Goal, plain: Score, score: Score) -> str | None:
    """Returns in what a network in another precision is not good enough; None where it is.

    Args:
        goal: What counts, with the floor.
        plain: The float32 file of the same network, compared with itself.
        score: The converted file, compared with that.
    """
    mine, before = goal.of(score), goal.of(plain)
    judged = goal.task.name != "none" and mine is not None and before is not None
    if goal.floor is not None and mine is not None:
        return None if goal.holds(mine) else f"its {goal.figure.name} of {goal.figure.said(mine)} misses {goal.bound}"
    if judged and mine is not None and before is not None:
        return _lost(goal, before, mine)
    if goal.task.name in _DECIDING:
        equal = score.agreement
        return None if equal >= EQUAL_DECISIONS else f"only {equal:.2%} of its decisions are those of the float32 file"
    off = score.divergence
    return None if off <= SQUARED_ERROR else f"its outputs are off by {off:.2g} of their variance"


def _lost(goal: Goal, before: float, after: float) -> str | None:
    worse = before - after if goal.figure.higher_is_better else after - before
    allowed = LOST_POINTS if goal.figure.unit == FRACTION else LOST_SHARE * abs(before)
    if worse <= allowed:
        return None
    return (
        f"its {goal.figure.name} is {goal.figure.said(after)} and that of the float32 file {goal.figure.said(before)}"
    )
