"""What a search does with the time that it has: shares of it, and fits that are not broken off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressors.problem import Candidate, Problem
    from compressors.strategies.planner import Measured

_PATIENCE = 0.25
"""Of a search's time, by which the fit of the best plan may exceed it before it is broken off."""


def share_of(seconds_left: Callable[[], float], share: float) -> Callable[[], float]:
    """Returns a function that says how many seconds are left of a share of the time that is left now, below 0 after it.

    Args:
        seconds_left: A clock; infinite where nobody minds.
        share: In [0, 1].
    """
    now = seconds_left()
    end = max(0.0, (1 - share) * now) if math.isfinite(now) else 0.0
    return lambda: seconds_left() - end


def until(seconds_left: Callable[[], float], share: float) -> Callable[[], bool]:
    """Returns a function that says when a share of the time that is left now has gone."""
    left = share_of(seconds_left, share)
    return lambda: left() <= 0


def patience(problem: Problem) -> float:
    """Returns by how many seconds the fit of a first plan may exceed a problem's time; asked when a search begins."""
    return _PATIENCE * max(0.0, problem.seconds_left())


def fitted_in_time(
    problem: Problem, plans: Sequence[Measured], fitted: Callable[[Measured], Candidate]
) -> list[Candidate]:
    """Returns plans fitted one after the other, as many as the time suffices for, and at least the first.

    None but the first is begun that would take longer than there is time, going by the ones before. A fit that is
    broken off makes a far worse network of a plan than the plan deserves: on a ResNet-20, one that is right on 16 % of
    held-back images where the whole fit, 13 s of one core, gives 91 %.

    Args:
        problem: Whose time it is.
        plans: The most promising first.
        fitted: Fits one.
    """
    found: list[Candidate] = []
    left, longest = problem.seconds_left(), 0.0
    for plan in plans:
        if found and left <= longest:
            break
        found.append(fitted(plan))
        before, left = left, problem.seconds_left()
        longest = max(longest, before - left)
    return found
