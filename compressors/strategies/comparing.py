"""Which plans to fit in full: judged as a whole first, and planned again by what that says of their cuts.

What several cuts do together is not what their harms add up to, so plans are judged together, refitted on few samples.
Each says something about all cuts that are in it (`beliefs`); by that, others are planned, judged and learned from, as
long as there is time and they get better. The best of those are measured and stand beside the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from compressors.strategies.beliefs import Beliefs
from compressors.strategies.clocks import until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compressors.choose import Choice
    from compressors.plan import Step
    from compressors.problem import Problem
    from compressors.strategies.planner import Measured, Planner

    Judged = Callable[[Sequence[Step], int], float]
    """Returns what a plan does as a whole, on few samples; told its number."""
    Harms = dict[tuple[Step, ...], float]
    """What plans do, each as a whole."""

_COMPARING_SHARE: Final = 0.4
"""Of the time that is left then, what judging plans as a whole may take."""
_MEASURING_SHARE: Final = 0.4
"""Of the time that is left then, what measuring new plans may take; they have to be fitted too."""
_COMPARED: Final = 4
"""Measured plans that are judged as a whole for each that is fitted in full."""
_HOPEFUL: Final = 1.25
"""Plans with at most this many times the least harm as a whole are worth fitting in full."""
_LEAST: Final = 2
"""Plans that are fitted in full at least, where there are so many: one may turn out too slow as a file."""
_IN_VAIN: Final = 24
"""So many in a row without a better one, and no more are made."""


@dataclass(frozen=True)
class Wanted:
    """How much is wanted.

    Attributes:
        plans: To be fitted in full, at most.
        comparisons: Plans that are made from what others taught, at most.
    """

    plans: int
    comparisons: int


def shortlisted(
    problem: Problem, planner: Planner, harms: Mapping[Step, float], wanted: Wanted, judged: Judged
) -> list[Measured]:
    """Returns the plans that are worth fitting in full, best first; part of the time left goes into choosing them.

    Args:
        problem: Whose time it is.
        planner: Has measured plans for the present budget.
        harms: Of each cut that may be taken, alone.
        wanted: How much.
        judged: Looks at a plan as a whole.
    """
    plans = planner.within(harms)
    if plans[0].choice.steps == planner.fastest().choice.steps:
        return plans[:1]
    enough = until(problem.seconds_left, _COMPARING_SHARE)
    known: Harms = {}
    for one in plans[: _COMPARED * wanted.plans]:
        if enough():
            break
        known[one.choice.steps] = _number(judged(one.choice.steps, len(known) + 1))
    if known and not enough():
        new = learned(planner, Beliefs(harms, problem.seed), known, wanted.comparisons, judged, enough)
        time = _MEASURING_SHARE * problem.seconds_left()
        planner.measure(new[: max(0, min(wanted.plans, planner.affordable(time)))])
        plans = planner.within(harms)
    return worth_fitting(plans, known)[: wanted.plans]


def learned(
    planner: Planner, beliefs: Beliefs, known: Harms, most: int, judged: Judged, enough: Callable[[], bool]
) -> list[Choice]:
    """Returns new plans for the present budget that may be worth fitting, best first.

    Args:
        planner: Makes them.
        beliefs: What the cuts do alone.
        known: What was judged before; what is judged here is added.
        most: How many are judged.
        judged: Looks at a plan as a whole.
        enough: Asked before each.
    """
    for steps, harm in known.items():
        beliefs.learn(steps, harm)
    found: dict[tuple[Step, ...], Choice] = {}
    best, in_vain = min(known.values()), 0
    while in_vain < _IN_VAIN and len(found) < most and not enough():
        in_vain += 1
        choice = planner.planned(beliefs.draw(), len(found) + in_vain)
        if choice is None or not choice.steps or choice.steps in known:
            continue
        harm = _number(judged(choice.steps, len(known) + 1))
        known[choice.steps], found[choice.steps] = harm, choice
        beliefs.learn(choice.steps, harm)
        if harm < best:
            best, in_vain = harm, 0
    hopeful = [steps for steps in found if known[steps] <= _HOPEFUL * best]
    return [found[steps] for steps in sorted(hopeful, key=known.__getitem__)]


def worth_fitting(plans: Sequence[Measured], known: Mapping[tuple[Step, ...], float]) -> list[Measured]:
    """Returns the plans that are worth fitting, by what they do as a whole.

    Args:
        plans: In the order that they are worth fitting in as far as their cuts alone tell; those that were not judged
            stay in it, behind the others.
        known: What was judged.
    """
    together = [known.get(one.choice.steps) for one in plans]
    most = _HOPEFUL * min((harm for harm in together if harm is not None), default=math.inf)
    order = sorted(range(len(plans)), key=lambda at: math.inf if (harm := together[at]) is None else harm)
    return [plans[at] for place, at in enumerate(order) if place < _LEAST or (together[at] or 0.0) <= most]


def _number(harm: float) -> float:
    """Returns a harm that can be compared: a network that puts out no numbers does as much as can be."""
    return math.inf if math.isnan(harm) else harm
