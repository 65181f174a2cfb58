"""A search without training: cuts are judged by what they do to the network's decisions, and fitted in closed form.

1. Time every stretch and every cut on the device (`planner`).
2. Judge every cut alone by what it does to the network's decisions (`harm.screen`).
3. Plan for the budget. Harm after refitting is what counts, but costs a fit each; so only cuts on the best path are
   judged again with refitting, and the path is solved again until all of it has been (the others' harm is guessed from
   the ratio found so far).
4. Judge the best plans as a whole, with refitting on few samples: what several cuts do together is not what their
   harms add up to. Fit the best few in full, and rank them by their divergence on selection samples.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, final

from compressors.analysis.sites import norm_sites
from compressors.batches import count, in_order
from compressors.channel_line import Line
from compressors.collapse import lines, site_statistics
from compressors.fit import FitConfig, Refit, RegressionConfig, fit
from compressors.harm import ScreenConfig, refitted, screen
from compressors.memory import key_of, remembered, remembered_fit, remembered_for
from compressors.plan import Plan, Way
from compressors.problem import Candidate
from compressors.score import Reference
from compressors.signature import fingerprint
from compressors.strategies.clocks import fitted_in_time, patience, until
from compressors.strategies.comparing import Wanted, shortlisted
from compressors.strategies.planner import Measured, Planner
from compressors.surgery import apply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressors.analysis.segments import Site
    from compressors.graph import Graph
    from compressors.plan import Step, StepKind
    from compressors.problem import Problem, Samples
    from compressors.table import Cut

_FIRST_RATIO: Mapping[StepKind, float] = {"regress": 0.3, "remove": 0.02, "merge": 0.3}
"""Share of a cut's screened harm that refitting may leave; removals look far worse than they are before it."""
_USUAL_RATIO: Mapping[StepKind, float] = {"regress": 0.7, "remove": 0.2, "merge": 0.7}
"""Share that refitting usually leaves, for cuts that nobody looked at closer before plans are made of them."""
_SCREENING_SHARE = 0.2
"""Of the time that is left, what judging cuts alone may take; it is done on fewer samples where that is not enough."""
_JUDGING_SHARE = 0.3
"""Of the time that is left then, what judging with refitting may take; plans have to be measured and fitted too."""
JUDGED_ON = 256
"""Selection samples that cuts and plans are judged on; plans that were fitted in full are judged on all."""
_LINES_FROM = 256
"""Calibration samples that lines are fitted on."""


@dataclass(frozen=True)
class Settings:
    """How much is tried.

    Attributes:
        name: The strategy's, for its plans.
        refit: What is refitted behind the cuts.
        way: What takes the place of activations in merges.
        calibration_samples: At most this many for the final fits.
        selection_samples: At most this many for the choices.
        plans: How many plans are fitted in full and compared.
        refinements: At most this many cuts are judged again with refitting, for each budget.
        comparisons: At most this many plans are made from what others taught, for each budget.
        margin: Share of the budget that is kept free.
    """

    name: str
    refit: Refit = "all"
    way: Way = "fitted"
    calibration_samples: int = 2048
    selection_samples: int = 1024
    plans: int = 4
    refinements: int = 32
    comparisons: int = 64
    margin: float = 0.02


@final
class FittedSearch:
    """One search (`compressors.problem.Search`). Table, measured networks, harms and fits are kept between budgets."""

    def __init__(self, problem: Problem, cuts: Sequence[Cut], settings: Settings) -> None:
        """Times the network's stretches and everything that could replace them."""
        self._problem, self._settings = problem, settings
        self._patience = patience(problem)
        self._done = 0.0
        self._report(0.0, "timing the network's stretches and what could replace them")
        self._planner = Planner(problem, cuts, settings.margin)
        self._lines: dict[str, Line] | None = None
        self._screened: dict[Step, float] = {}
        self._refitted: dict[Step, float] = {}
        self._fitted: dict[tuple[Step, ...], Candidate] = {}
        self._asked: str | None = None

    def floor(self) -> Plan:
        """Returns the plan with everything gone that can go, its latency measured; nothing is fitted."""
        self._report(0.1, "measuring how far latency can go down")
        return self._plan(self._planner.fastest())

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns the plans that were fitted for a budget, best first."""
        self._planner.aim(budget_seconds)
        floor = self._planner.fastest()
        if floor.seconds >= self._planner.target:
            return [self._candidate(floor, self._reference())]
        harms = self._harms(self._quick)
        self._report(0.5, "measuring plans")
        self._planner.settle(harms, self._settings.plans - 1)
        fitted = self._fit_best(harms)
        return sorted(fitted, key=lambda one: _rank(one, budget_seconds))

    def _plan(self, one: Measured) -> Plan:
        return Plan(self._settings.name, one.choice.steps, self._settings.refit != "none", one.seconds, one.choice.harm)

    def _reference(self, most: int | None = None) -> Reference:
        limit = self._settings.selection_samples if most is None else min(most, self._settings.selection_samples)
        return Reference.of(self._problem.graph, self._problem.selection, limit, 64, self._problem.task)

    @cached_property
    def _quick(self) -> Reference:
        """What cuts and plans are judged on before one is fitted in full."""
        return self._reference(JUDGED_ON).rough(self._problem.graph, self._problem.precision)

    def _lines_of(self) -> dict[str, Line]:
        """Returns what takes the place of the activations that some merge takes out."""
        if self._lines is None:
            self._report(0.1, "looking at what goes through the activations")
            wanted = {site for one in self._planner.alternatives for site in one.step.sites}
            sites = [site for site in self._problem.analysis.sites if site.node in wanted]
            if self._settings.way == "fitted":
                sites += norm_sites(self._problem.graph, wanted)
            self._lines = site_lines(self._problem.graph, sites, self._settings.way, self._problem.calibration)
        return self._lines

    def _harms(self, reference: Reference) -> dict[Step, float]:
        """Returns the harm of each cut after refitting: found out where it matters, guessed elsewhere."""
        if not self._screened:
            steps = [one.step for one in self._planner.alternatives]
            key = key_of("screen", self._question(), steps)
            self._screened = remembered_for(self._problem.memory, key, steps, lambda: self._screen(reference))
        return self._screened if self._settings.refit == "none" else self._refined(reference)

    def _screen(self, reference: Reference) -> dict[Step, float]:
        """Returns the harm of each cut alone, nothing refitted."""
        problem = self._problem
        scores = screen(
            problem.graph,
            self._planner.alternatives,
            problem.calibration,
            reference,
            ScreenConfig(seed=problem.seed, lines=self._lines_of(), enough=until(problem.clock, _SCREENING_SHARE)),
            lambda done: self._report(0.1 + 0.2 * done, "judging each cut alone"),
        )
        return {step: score.divergence for step, score in scores.items()}

    def _question(self) -> str:
        """Returns a key of everything that the judgement of a cut depends on besides the cut."""
        if self._asked is None:
            problem = self._problem
            data = count(problem.calibration), count(problem.selection), problem.seed, problem.task
            self._asked = key_of("cuts", fingerprint(problem.graph), self._settings, data)
        return self._asked

    def _refined(self, reference: Reference) -> dict[Step, float]:
        screened, found = self._screened, self._refitted
        harms = _guess(screened, found)
        before, most = len(found), self._settings.refinements
        enough = until(self._problem.seconds_left, _JUDGING_SHARE)
        while len(found) - before < most and not enough():
            on_path = {step for choice in self._planner.choices(harms) for step in choice.steps}
            # The most doubtful first: what was guessed from the largest screened harm.
            unknown = sorted(on_path - set(found), key=lambda step: (-screened[step], step.exit))
            if not unknown:
                break
            for step in unknown[: most - (len(found) - before)]:
                if enough():
                    break
                share = 0.3 + 0.2 * (len(found) - before) / most
                told = share, f"judging with refitting: {step.label}"
                found[step] = min(self._refitted_harm([step], reference, told), screened[step])
            harms = _guess(screened, found)
        return _estimate(screened, found)

    def _refitted_harm(self, steps: Sequence[Step], reference: Reference, told: tuple[float, str]) -> float:
        """Returns the harm of some cuts when everything behind them is refitted, on few samples.

        Args:
            steps: The cuts.
            reference: What they are judged on.
            told: Progress to report where this is not known yet.
        """
        problem = self._problem

        def judge() -> dict[str, float]:
            self._report(*told)
            config = self._fit_config(quick=True)
            score = refitted(problem.graph, steps, problem.calibration, reference, config, self._lines_of())
            return {"divergence": score.divergence}

        key = key_of("refit", self._question(), *steps)
        return remembered(problem.memory, key, ["divergence"], judge)["divergence"]

    def _fit_best(self, harms: Mapping[Step, float]) -> list[Candidate]:
        quick, reference = self._quick, self._reference()

        def judged(steps: Sequence[Step], number: int) -> float:
            return self._refitted_harm(steps, quick, (0.7, f"comparing plans, {number}"))

        wanted = Wanted(self._settings.plans, self._settings.comparisons)
        chosen = shortlisted(self._problem, self._planner, harms, wanted, judged)

        def fitted(one: Measured) -> Candidate:
            done = chosen.index(one)
            self._report(0.8 + 0.2 * done / len(chosen), f"fitting plan {done + 1} of {len(chosen)}")
            return self._candidate(one, reference)

        return fitted_in_time(self._problem, chosen, fitted)

    def _candidate(self, one: Measured, reference: Reference) -> Candidate:
        """Returns the choice fitted in full and scored."""
        steps = one.choice.steps
        if steps not in self._fitted:
            problem = self._problem
            cut = apply(problem.graph, steps, self._lines_of())
            config = self._fit_config(quick=False)

            def fitted() -> Graph:
                return fit(problem.graph, cut, steps, problem.calibration, config).graph

            graph = remembered_fit(problem.memory, key_of("fit", self._question(), steps), cut, fitted)
            self._fitted[steps] = Candidate(self._plan(one), graph, reference.score(graph.module), one.seconds)
        return self._fitted[steps]

    def _fit_config(self, *, quick: bool) -> FitConfig:
        problem = self._problem
        full = RegressionConfig(seed=problem.seed, enough=lambda: problem.clock() <= -self._patience)
        config = FitConfig(self._settings.refit, self._settings.calibration_samples, regression=full)
        return rough(config) if quick else config

    def _report(self, fraction: float, message: str) -> None:
        self._done = max(self._done, fraction)
        self._problem.progress(self._done, message)


def site_lines(graph: Graph, sites: Sequence[Site], way: Way, calibration: Samples) -> dict[str, Line]:
    """Returns the line for each of some activations; none where nobody can say which.

    Args:
        graph: The network that they are in.
        sites: Which.
        way: How.
        calibration: Read where the way needs samples.
    """
    if not sites or way == "identity":
        return {}
    statistics = None
    if way == "fitted":
        batches = (batch.inputs for batch in in_order(calibration, 128, _LINES_FROM))
        statistics = site_statistics(graph, batches, sites, mask_input(graph))
    found = lines(graph, sites, way, statistics)
    return {name: line for name, line in found.items() if isinstance(line, Line)}


def mask_input(graph: Graph) -> str | None:
    """Returns the name of the input that marks padding, if there is one."""
    return next((spec.name for spec in graph.inputs if spec.is_mask and len(spec.shape) == 1), None)


def rough(config: FitConfig) -> FitConfig:
    """Returns a fit that is enough to rank cuts and plans by: a tenth of the work of the final one."""
    regression = replace(config.regression, ridges=(1e-3, 1e-1), rows_per_feature=10, least_rows=5_000)
    refit: Refit = "last" if config.refit == "all" else config.refit
    return replace(config, refit=refit, samples=min(256, config.samples), regression=regression)


def _rank(candidate: Candidate, budget_seconds: float) -> tuple[bool, float]:
    over = candidate.seconds is None or candidate.seconds > budget_seconds
    return over, candidate.score.divergence


def _guess(screened: Mapping[Step, float], found: Mapping[Step, float]) -> dict[Step, float]:
    """Returns found harms, and for the others what refitting would leave at best: the screened harm times a ratio."""
    ratio = {kind: _best_ratio(kind, screened, found) for kind in _FIRST_RATIO}
    return {step: found.get(step, harm * ratio[step.kind]) for step, harm in screened.items()}


def _estimate(screened: Mapping[Step, float], found: Mapping[Step, float]) -> dict[Step, float]:
    """Returns found harms, and for the others what refitting is likely to leave: plans are made of these."""
    ratio = {kind: _usual_ratio(kind, screened, found) for kind in _USUAL_RATIO}
    return {step: found.get(step, harm * ratio[step.kind]) for step, harm in screened.items()}


def _usual_ratio(kind: StepKind, screened: Mapping[Step, float], found: Mapping[Step, float]) -> float:
    """Returns the median share of the screened harm that refitting has left so far."""
    shares = [harm / screened[step] for step, harm in found.items() if step.kind == kind and screened[step] > 0]
    return statistics.median([_USUAL_RATIO[kind], *shares])


def _best_ratio(kind: StepKind, screened: Mapping[Step, float], found: Mapping[Step, float]) -> float:
    """Returns the least share of the screened harm that refitting has left so far: optimism overlooks nothing good."""
    shares = [harm / screened[step] for step, harm in found.items() if step.kind == kind and screened[step] > 0]
    return min([_FIRST_RATIO[kind], *shares])
