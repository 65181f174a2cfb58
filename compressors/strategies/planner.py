"""Plans for a latency: which cuts to take, given what each costs and what each does to the network.

Every strategy has its own idea of harm; what follows from it is the same for all:

1. The cuts with the least total harm within a time are found by dynamic programming over a measured table (`choose`).
   Harms do not simply add up, so this is done under several transforms of the harm, which gives different plans.
2. A table's sum is not a network's time: a line, actual = a + b * table, is fitted on whole networks measured. Latency
   depends on structure alone, so this comes before any weight is fitted. The table's budget is moved until the
   measured network is within the real one, and not needlessly below.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from compressors.choose import Choice, Chooser
from compressors.line import Line
from compressors.signature import fingerprint, signature
from compressors.strategies.clocks import share_of
from compressors.table import Cut, measure_table, structure, undominated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compressors.graph import Graph
    from compressors.plan import Step
    from compressors.problem import Problem
    from compressors.table import Alternative

_CORRECTIONS = 4
"""Times that the table's budget is corrected by a measurement."""
_MEASURING_SHARE = 0.4
"""Of the time that is left then, what measuring plans may take; they have to be fitted too."""
_ONCE = 3
"""A measurement of n networks takes about as long as n and so many would: a process starts, and the exporter."""
_SPREAD = (1.0, 0.95, 0.9)
"""Shares of the target that plans are made for where there is time for one measurement. Between floor and original the
line errs by 5 %: 36 plans for a ResNet-20 took 0.93 to 1.11 times what it said, half of them 0.96 to 1.01 times."""
_TRANSFORMS: tuple[Callable[[float], float], ...] = (math.sqrt, float, lambda harm: harm**0.25)


@dataclass(frozen=True)
class Measured:
    """A set of cuts whose structure was measured.

    Attributes:
        choice: The cuts, with the harm to expect of them together.
        seconds: Whole-network latency.
        network: Equal for sets of cuts that come to one network, fitted alike.
    """

    choice: Choice
    seconds: float
    network: str


@final
class Planner:
    """The latency side of a search; table and measured networks are kept between budgets.

    Args:
        problem: What is to be made faster.
        cuts: Everything that may be done; those that save nothing are left out.
        margin: Share of every budget that is kept free, so that noise does not break it.
    """

    def __init__(self, problem: Problem, cuts: Sequence[Cut], margin: float = 0.02) -> None:
        self._problem = problem
        self._table = undominated(measure_table(problem, cuts))
        self._chooser = Chooser(problem.graph, problem.analysis, self._table)
        self._line = Line()
        self._margin = margin
        self._target = problem.budget_seconds * (1 - margin)
        self._measured: dict[tuple[Step, ...], Measured] = {}
        self._seconds: dict[str, float] = {}
        self._each = 0.0

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """Returns every cut that is faster than what it replaces."""
        return self._table.alternatives

    @property
    def target(self) -> float:
        """Returns the seconds that are aimed at, the margin taken off."""
        return self._target

    def aim(self, budget_seconds: float) -> None:
        """Sets the budget that choices are made for."""
        self._target = budget_seconds * (1 - self._margin)

    def fastest(self) -> Measured:
        """Returns everything gone that can go, measured."""
        choice = self._chooser.fastest()
        self.measure([choice])
        return self._measured[choice.steps]

    def seconds(self, choice: Choice) -> float:
        """Returns what a choice takes: measured where it was, expected elsewhere."""
        known = self._measured.get(choice.steps)
        return known.seconds if known else self._line.actual(choice.seconds)

    def measure(self, choices: Sequence[Choice]) -> None:
        """Measures whole networks that were not measured yet, interleaved with the original, and learns from them.

        Of networks that differ in their weights alone one is measured.
        """
        new = {choice.steps: choice for choice in choices if choice.steps not in self._measured}
        graphs = {steps: structure(self._problem.graph, steps) for steps in new}
        keys = {steps: signature(graph.module, graph.inputs) for steps, graph in graphs.items()}
        self._time({keys[steps]: graph for steps, graph in graphs.items() if keys[steps] not in self._seconds})
        for steps, choice in new.items():
            seconds = self._seconds[keys[steps]]
            self._measured[steps] = Measured(choice, seconds, _network(graphs[steps], steps))
            self._line.add(choice.seconds, seconds)

    def _time(self, graphs: Mapping[str, Graph]) -> None:
        """Times structures, by signature, beside the original."""
        if not graphs:
            return
        problem = self._problem
        whole = structure(problem.graph, ())
        timed = [(graph.module, graph.inputs) for graph in (whole, *graphs.values())]
        before = problem.seconds_left()
        original, *seconds = problem.timer.networks(timed)
        after = problem.seconds_left()
        self._each = (before - after) / (len(timed) + _ONCE) if math.isfinite(before) else 0.0
        # Machines drift: what counts is the ratio to the original at the same moment.
        drift = problem.baseline_seconds / original
        self._line.add(self._chooser.whole, problem.baseline_seconds)
        self._seconds |= {key: value * drift for key, value in zip(graphs, seconds, strict=True)}

    def choices(self, harms: Mapping[Step, float]) -> list[Choice]:
        """Returns the best choice under each transform for the present budget, distinct ones only.

        Args:
            harms: Of each cut that may be taken, >= 0.
        """
        found = {choice.steps: choice for budget in self._budgets(harms) for choice in self._best(harms, budget)}
        return list(found.values())

    def _budgets(self, harms: Mapping[Step, float]) -> list[float]:
        """Returns the table sums to aim at: from the network nearest to the target, and from the best within it.

        Tables err by cut: on a VGG-16, plans of one sum took 0.45 and 0.58 times the original. Going by the nearest
        alone, what is made of the other's cuts would never come close to the target.
        """
        budgets = [self._table_budget()]
        within = self._slower_than_floor(harms)
        if within:
            best = min(within, key=lambda one: _with_harm(one.choice, harms).harm)
            budgets.append(self._from(best, self._target))
        return budgets

    def _best(self, harms: Mapping[Step, float], seconds: float) -> list[Choice]:
        """Returns the best choice under each transform for a table's budget, distinct ones only.

        They are made of all cuts, and of all but removals. A removal does little alone, when everything behind it is
        refitted to make up for it, and much beside others: on a ResNet-20 at half of its latency, of the plans made of
        all cuts the best had a divergence of 0.81 when refitted as a whole, and of those without removals 0.67.
        """
        found: dict[tuple[Step, ...], Choice] = {}
        kept = {step: harm for step, harm in harms.items() if step.kind != "remove"}
        for family in (harms, kept) if len(kept) < len(harms) else (harms,):
            for transform in _TRANSFORMS:
                choice = self._chooser.least_harm({step: transform(harm) for step, harm in family.items()}, seconds)
                if choice is not None:
                    found.setdefault(choice.steps, _with_harm(choice, harms))
        return list(found.values())

    def planned(self, harms: Mapping[Step, float], number: int) -> Choice | None:
        """Returns the best choice for the present budget if harms are these; None where nothing is within it.

        Args:
            harms: Of each cut that may be taken, >= 0.
            number: The how manieth is asked for, which decides what the table's budget goes by (`_budgets`).
        """
        budgets = self._budgets(harms)
        roots = {step: math.sqrt(harm) for step, harm in harms.items()}
        return self._chooser.least_harm(roots, budgets[number % len(budgets)])

    def settle(self, harms: Mapping[Step, float], neighbours: int = 3) -> None:
        """Measures the best plans for the present budget, as many as there is time for.

        At least one is measured, and more until one is within the budget: without any, all that could go would go.

        Args:
            harms: Of each cut that may be taken, >= 0.
            neighbours: How many others like the best plan are measured with it.
        """
        left = share_of(self._problem.seconds_left, _MEASURING_SHARE)
        for _ in range(_CORRECTIONS):
            best = self.choices(harms)
            hurried = self.affordable(left()) < len(best) + neighbours
            choices = self._spread(harms) if hurried else [*best, *self._neighbours(harms, best, neighbours)]
            new = [choice for choice in choices if choice.steps not in self._measured]
            self.measure(new)
            if not new or (left() <= 0 and self._reaches(harms)):
                break

    def _spread(self, harms: Mapping[Step, float]) -> list[Choice]:
        """Returns the best choices for the budget and a bit below it: one is within the budget though the line errs."""
        budgets = [self._table_budget(share) for share in _SPREAD]
        return list({choice.steps: choice for seconds in budgets for choice in self._best(harms, seconds)[:1]}.values())

    def affordable(self, seconds: float) -> int:
        """Returns how many networks can be measured together in a time, going by the last ones."""
        return sys.maxsize if math.isinf(seconds) or self._each <= 0 else int(seconds / self._each) - _ONCE - 1

    def within(self, harms: Mapping[Step, float]) -> list[Measured]:
        """Returns what was measured and is within the budget, least harm first; the fastest only if nothing else is.

        Of sets of cuts that come to one network there is one, as two removals side by side are one of both.

        Args:
            harms: As known now; what holds other cuts is left out.
        """
        found = [replace(one, choice=_with_harm(one.choice, harms)) for one in self._slower_than_floor(harms)]
        distinct: dict[str, Measured] = {}
        for one in sorted(found, key=lambda one: one.choice.harm):
            distinct.setdefault(one.network, one)
        return list(distinct.values()) or [self.fastest()]

    def _reaches(self, harms: Mapping[Step, float]) -> bool:
        """Returns whether something besides the fastest was measured and is within the budget."""
        return bool(self._slower_than_floor(harms))

    def _slower_than_floor(self, harms: Mapping[Step, float]) -> list[Measured]:
        floor = self.fastest()
        return [
            one
            for one in self._measured.values()
            if one.seconds <= self._target and one.network != floor.network and harms.keys() >= {*one.choice.steps}
        ]

    def _table_budget(self, share: float = 1.0) -> float:
        """Returns the table sum to aim at: the line, moved through the measured network nearest to the target.

        Args:
            share: Of the target.
        """
        self.fastest()
        target = share * self._target
        return self._from(min(self._measured.values(), key=lambda one: abs(one.seconds - target)), target)

    def _from(self, one: Measured, seconds: float) -> float:
        """Returns the table sum that takes so many seconds, by the line moved through a measured network."""
        _, slope = self._line.coefficients()
        return one.choice.seconds + (seconds - one.seconds) / slope

    def _neighbours(self, harms: Mapping[Step, float], choices: Sequence[Choice], most: int) -> list[Choice]:
        """Returns the best choices that go without one of the cuts of the first that is not measured."""
        choice = next((choice for choice in choices if choice.steps not in self._measured), None)
        if choice is None:
            return []
        seconds = self._table_budget()
        roots = {step: math.sqrt(harm) for step, harm in harms.items()}
        found: dict[tuple[Step, ...], Choice] = {}
        for step in choice.steps:
            other = self._chooser.least_harm({key: root for key, root in roots.items() if key != step}, seconds)
            if other is not None and other.steps not in self._measured:
                found[other.steps] = _with_harm(other, harms)
        return sorted(found.values(), key=lambda other: other.harm)[:most]


def _with_harm(choice: Choice, harms: Mapping[Step, float]) -> Choice:
    """Returns the choice with the harm to expect of all its cuts together.

    Divergence grows with the square of an error, and the errors of several cuts add up rather than average out: on a
    ResNet-20, plans of 1, 2, 3 and 5 cuts did 0.8, 1.3, 2.0 and 3.6 times the sum of their harms. The square of the sum
    of roots lies above that, the sum below; the square ranks plans better.
    """
    return replace(choice, harm=sum(math.sqrt(harms[step]) for step in choice.steps) ** 2)


def _network(graph: Graph, steps: Sequence[Step]) -> str:
    """Returns a key of what steps come to: their network, and what is fitted to which part of the original."""
    return f"{fingerprint(graph)} {sorted(repr(step) for step in steps if step.kind != 'remove')}"
