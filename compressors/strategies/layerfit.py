"""`layerfit`: cut what matters least, put a fitted operator or nothing in its place, refit what follows.

1. Time every stretch and every alternative on the device (`table`).
2. Judge every alternative alone by what it does to the network's decisions (`harm.screen`).
3. Find the set with the least total harm within the budget by dynamic programming (`choose`). Harm after refitting is
   what counts, but costs a fit each; so only cuts on the best path are judged again with refitting, and the path is
   solved again until all of it has been (the others' harm is guessed from the ratio found so far).
4. A table's sum is not a network's time: a line, actual = a + b * table, is fitted on whole networks measured. Latency
   depends on structure alone, so this comes before any weight is fitted. The table's budget is moved until the
   measured network is within the real one, and not needlessly below.
5. Fit the best few plans in full, and rank them by their divergence on selection samples.

Harms do not simply add up either, so step 3 is done under several transforms of the harm, which gives different plans.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, final

from pydantic import Field

from compressors.choose import Choice, Chooser
from compressors.fit import FitConfig, Refit, RegressionConfig, fit
from compressors.harm import ScreenConfig, refitted, screen
from compressors.line import Line
from compressors.plan import Plan
from compressors.problem import Candidate
from compressors.score import Reference
from compressors.strategies.options import Options
from compressors.surgery import apply
from compressors.table import Alternative, Table, measure_table, structure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compressors.plan import Step, StepKind
    from compressors.problem import Problem

NAME = "layerfit"
SUMMARY = (
    "Replaces stretches by one operator fitted in closed form, or by nothing, where the measured latency gains most "
    "and the network's decisions change least; refits what follows. Needs no labels."
)
_TRANSFORMS: tuple[Callable[[float], float], ...] = (math.sqrt, float, lambda harm: harm**0.25)
_FIRST_RATIO: Mapping[StepKind, float] = {"regress": 0.3, "remove": 0.02}
"""Share of a cut's screened harm that refitting may leave; removals look far worse than they are before it."""
_JUDGED_ON = 256
"""Selection samples that single cuts are judged on; plans are judged on all."""
_ROUNDS = 4
"""Times that the table's budget is corrected by a measurement."""


class LayerfitOptions(Options):
    """Options of `layerfit`."""

    refit: Literal["none", "last", "all"] = "all"
    """What is refitted behind the cuts: nothing, the last operator of each block, or every operator."""
    regress: bool = True
    """Whether stretches may be replaced by one fitted operator."""
    remove: bool = True
    """Whether stretches may be removed without replacement."""
    max_kernel: int = Field(default=5, ge=1, le=15)
    """Largest kernel of a fitted convolution."""
    max_unknowns: int = Field(default=5000, ge=1, le=50_000)
    """Operators with more weights per output are not fitted: memory grows with the square, time with the cube."""
    calibration_samples: int = Field(default=2048, ge=1)
    """At most this many unlabelled samples for the final fits."""
    selection_samples: int = Field(default=1024, ge=1)
    """At most this many held-back samples for the choices."""
    plans: int = Field(default=4, ge=1, le=32)
    """How many plans are fitted in full and compared."""
    refinements: int = Field(default=32, ge=0, le=512)
    """At most this many cuts are judged again with refitting, for each budget that is tried."""
    margin: float = Field(default=0.02, ge=0, lt=1)
    """Share of the budget that is kept free, so that noise does not break it."""


@dataclass(frozen=True)
class _Measured:
    choice: Choice
    seconds: float


@final
class LayerfitSearch:
    """One search (`compressors.problem.Search`). Table, measured networks, harms and fits are kept between budgets."""

    def __init__(self, problem: Problem, options: LayerfitOptions) -> None:
        """Times the network's stretches and everything that could replace them."""
        self._problem, self._options = problem, options
        self._done = 0.0
        self._report(0.0, "timing the network's stretches and what could replace them")
        table = measure_table(problem, problem.analysis.segments)
        allowed = tuple(alternative for alternative in table.alternatives if self._allowed(alternative))
        self._table = Table(table.kept, allowed)
        self._chooser = Chooser(problem.graph, problem.analysis, self._table)
        self._line = Line()
        self._target = problem.budget_seconds * (1 - options.margin)
        self._measured: dict[tuple[Step, ...], _Measured] = {}
        self._screened: dict[Step, float] = {}
        self._refitted: dict[Step, float] = {}
        self._fitted: dict[tuple[Step, ...], Candidate] = {}

    def floor(self) -> Plan:
        """Returns the plan with everything gone that can go, its latency measured; nothing is fitted."""
        choice = self._chooser.fastest()
        self._report(0.1, "measuring how far latency can go down")
        self._measure([choice])
        return self._plan(choice)

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns the plans that were fitted for a budget, best first."""
        self._target = budget_seconds * (1 - self._options.margin)
        floor = self._chooser.fastest()
        self._measure([floor])
        if self._measured[floor.steps].seconds >= self._target:
            return [self._candidate(floor, self._reference())]
        harms = self._harms(self._reference(_JUDGED_ON))
        for round_ in range(_ROUNDS):
            self._report(0.5 + 0.05 * round_, "measuring plans")
            if not self._propose(harms):
                break
        fitted = self._fit_best(self._reference(), floor)
        return sorted(fitted, key=lambda one: _rank(one, budget_seconds))

    def _plan(self, choice: Choice) -> Plan:
        """Returns the choice as a plan; its seconds are measured where they were."""
        known = self._measured.get(choice.steps)
        seconds = known.seconds if known else self._line.actual(choice.seconds)
        return Plan(NAME, choice.steps, self._options.refit != "none", seconds, choice.harm)

    def _measure(self, choices: Sequence[Choice]) -> None:
        """Measures whole networks that were not measured yet, interleaved with the original, and learns from them."""
        new = {choice.steps: choice for choice in choices if choice.steps not in self._measured}
        if not new:
            return
        problem = self._problem
        graphs = [structure(problem.graph, steps) for steps in ((), *new)]
        original, *seconds = problem.timer.networks([(graph.module, graph.inputs) for graph in graphs])
        # Machines drift: what counts is the ratio to the original at the same moment.
        drift = problem.baseline_seconds / original
        self._line.add(self._chooser.whole, problem.baseline_seconds)
        for choice, value in zip(new.values(), seconds, strict=True):
            self._measured[choice.steps] = _Measured(choice, value * drift)
            self._line.add(choice.seconds, value * drift)

    def _allowed(self, alternative: Alternative) -> bool:
        step, options = alternative.step, self._options
        if step.kind == "remove":
            return options.remove
        shape = alternative.segment.input_shape
        unknowns = shape[0] * math.prod(step.kernel) if step.kernel else shape[-1]
        return (
            options.regress and max(step.kernel, default=1) <= options.max_kernel and unknowns <= options.max_unknowns
        )

    def _reference(self, most: int | None = None) -> Reference:
        limit = self._options.selection_samples if most is None else min(most, self._options.selection_samples)
        return Reference.of(self._problem.graph, self._problem.selection, limit, 64, self._problem.task)

    def _harms(self, reference: Reference) -> dict[Step, float]:
        """Returns the harm of each cut after refitting: found out where it matters, guessed elsewhere."""
        if not self._screened:
            problem = self._problem
            scores = screen(
                problem.graph,
                self._table.alternatives,
                problem.calibration,
                reference,
                ScreenConfig(seed=problem.seed),
                lambda done: self._report(0.1 + 0.2 * done, "judging each cut alone"),
            )
            self._screened = {step: score.divergence for step, score in scores.items()}
        return self._screened if self._options.refit == "none" else self._refined(reference)

    def _refined(self, reference: Reference) -> dict[Step, float]:
        screened, found = self._screened, self._refitted
        harms = _guess(screened, found)
        config = self._fit_config(quick=True)
        before, most = len(found), self._options.refinements
        while len(found) - before < most and self._time_left():
            on_path = {step for choice in self._choices(harms) for step in choice.steps}
            # The most doubtful first: what was guessed from the largest screened harm.
            unknown = sorted(on_path - set(found), key=lambda step: (-screened[step], step.exit))
            if not unknown:
                break
            for step in unknown[: most - (len(found) - before)]:
                self._report(0.3 + 0.2 * (len(found) - before) / most, f"judging with refitting: {step.label}")
                score = refitted(self._problem.graph, step, self._problem.calibration, reference, config)
                found[step] = min(score.divergence, screened[step])
            harms = _guess(screened, found)
        return harms

    def _table_budget(self) -> float:
        """Returns the table sum to aim at: the line, moved through the measured network nearest to the target."""
        _, slope = self._line.coefficients()
        nearest = min(self._measured.values(), key=lambda one: abs(one.seconds - self._target))
        return nearest.choice.seconds + (self._target - nearest.seconds) / slope

    def _choices(self, harms: Mapping[Step, float]) -> list[Choice]:
        """Returns the best choice under each transform for the present budget, distinct ones only."""
        seconds = self._table_budget()
        found: dict[tuple[Step, ...], Choice] = {}
        for transform in _TRANSFORMS:
            choice = self._chooser.least_harm({step: transform(harm) for step, harm in harms.items()}, seconds)
            if choice is not None:
                found.setdefault(choice.steps, _with_harm(choice, harms))
        return list(found.values())

    def _propose(self, harms: Mapping[Step, float]) -> bool:
        """Measures the best choices of the present line; returns whether there were new ones."""
        choices = [choice for choice in self._choices(harms) if choice.steps not in self._measured]
        choices += self._neighbours(harms, choices[0]) if choices else []
        self._measure(choices)
        return bool(choices)

    def _neighbours(self, harms: Mapping[Step, float], choice: Choice) -> list[Choice]:
        """Returns the best choices that go without one of this choice's cuts."""
        seconds = self._table_budget()
        roots = {step: math.sqrt(harm) for step, harm in harms.items()}
        found: dict[tuple[Step, ...], Choice] = {}
        for step in choice.steps:
            other = self._chooser.least_harm({key: root for key, root in roots.items() if key != step}, seconds)
            if other is not None and other.steps not in self._measured:
                found[other.steps] = _with_harm(other, harms)
        return sorted(found.values(), key=lambda other: other.harm)[: self._options.plans - 1]

    def _fit_best(self, reference: Reference, floor: Choice) -> list[Candidate]:
        measured = self._measured.values()
        within = [one for one in measured if one.seconds <= self._target and one.choice.steps != floor.steps]
        within.sort(key=lambda one: one.choice.harm)
        chosen = within[: self._options.plans] or [self._measured[floor.steps]]
        candidates: list[Candidate] = []
        for done, one in enumerate(chosen):
            if candidates and not self._time_left():
                break
            self._report(0.7 + 0.3 * done / len(chosen), f"fitting plan {done + 1} of {len(chosen)}")
            candidates.append(self._candidate(one.choice, reference))
        return candidates

    def _candidate(self, choice: Choice, reference: Reference) -> Candidate:
        """Returns the choice fitted in full and scored."""
        if choice.steps not in self._fitted:
            problem = self._problem
            cut = apply(problem.graph, choice.steps)
            result = fit(problem.graph, cut, choice.steps, problem.calibration, self._fit_config(quick=False))
            score = reference.score(result.graph.module)
            seconds = self._measured[choice.steps].seconds
            self._fitted[choice.steps] = Candidate(self._plan(choice), result.graph, score, seconds)
        return self._fitted[choice.steps]

    def _fit_config(self, *, quick: bool) -> FitConfig:
        seed = self._problem.seed
        if quick:
            # Enough to rank cuts by: a tenth of the work of the final fit.
            rough = RegressionConfig(ridges=(1e-3, 1e-1), rows_per_feature=10, least_rows=5_000, seed=seed)
            refit: Refit = "last" if self._options.refit == "all" else self._options.refit
            return FitConfig(refit, min(256, self._options.calibration_samples), regression=rough)
        return FitConfig(self._options.refit, self._options.calibration_samples, regression=RegressionConfig(seed=seed))

    def _time_left(self) -> bool:
        return self._problem.seconds_left() > 0

    def _report(self, fraction: float, message: str) -> None:
        self._done = max(self._done, fraction)
        self._problem.progress(self._done, message)


def _rank(candidate: Candidate, budget_seconds: float) -> tuple[bool, float]:
    over = candidate.seconds is None or candidate.seconds > budget_seconds
    return over, candidate.score.divergence


def _with_harm(choice: Choice, harms: Mapping[Step, float]) -> Choice:
    """Returns the choice with the harm to expect of all its cuts together.

    Divergence grows with the square of an error, and the errors of several cuts add up rather than average out: on a
    ResNet-20, plans of 1, 2, 3 and 5 cuts did 0.8, 1.3, 2.0 and 3.6 times the sum of their harms. The square of the sum
    of roots lies above that, the sum below; the square ranks plans better.
    """
    return replace(choice, harm=sum(math.sqrt(harms[step]) for step in choice.steps) ** 2)


def _guess(screened: Mapping[Step, float], found: Mapping[Step, float]) -> dict[Step, float]:
    """Returns found harms, and for the others what refitting would leave at best: the screened harm times a ratio."""
    ratio = {kind: _best_ratio(kind, screened, found) for kind in _FIRST_RATIO}
    return {step: found.get(step, harm * ratio[step.kind]) for step, harm in screened.items()}


def _best_ratio(kind: StepKind, screened: Mapping[Step, float], found: Mapping[Step, float]) -> float:
    """Returns the least share of the screened harm that refitting has left so far: optimism overlooks nothing good."""
    shares = [harm / screened[step] for step, harm in found.items() if step.kind == kind and screened[step] > 0]
    return min([_FIRST_RATIO[kind], *shares])
