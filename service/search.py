"""Looks for the network to ship: plan, check on the device, fine-tune; again with another aim if need be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from compressors.graph import Graph
from compressors.problem import Candidate, Problem, Score
from compressors.strategies import Strategy
from compressors.strategies.options import Options
from compressors.tune import Tuned

AIM_ROUNDS = 3
"""How often the aim is tightened when the exported network misses what its structure promised."""

AIM_MARGIN = 0.985
RELAXATIONS = (1 / 3, 2 / 3)
"""How far between budget and original to go when nothing within the budget holds the accuracy floor."""


@dataclass(frozen=True)
class Timing:
    """How an exported candidate did: its own seconds, and the most that were allowed."""

    seconds: float
    limit_seconds: float

    @property
    def met(self) -> bool:
        """Whether it is fast enough."""
        return self.seconds <= self.limit_seconds


@dataclass(frozen=True)
class Trial:
    """One network that was tried.

    Attributes:
        candidate: How it was made and how it scored before fine-tuning.
        graph: What may be shipped: the fine-tuned graph where there was fine-tuning.
        score: Of `graph`, on the selection samples.
        tuned: What fine-tuning did, None without.
    """

    candidate: Candidate
    graph: Graph
    score: Score
    tuned: Tuned | None = None


@dataclass(frozen=True)
class Tools:
    """What the search calls on; each takes its part of the job from the pipeline.

    Attributes:
        time: Exports a graph and times it beside the original in a fresh process, against an aim in seconds.
        tune: Fine-tunes a candidate, or returns None where fine-tuning is off or the time is up.
        seconds_left: Until the job must wind up.
    """

    time: Callable[[Graph, float], Timing]
    tune: Callable[[Candidate], Tuned | None]
    seconds_left: Callable[[], float]


@dataclass
class Found:
    """What a search came to: trials in the order they were made, the best of them, the lowest latency in reach."""

    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None
    floor_seconds: float | None = None


def search(problem: Problem, strategy: Strategy, options: Options, tools: Tools, floor: float | None) -> Found:
    """Returns every network tried and the one to ship.

    Without an accuracy floor that is the best one within the budget, or the fastest there is. With one, it is the
    fastest that holds the floor on the selection samples.

    Args:
        problem: The job as the strategy sees it.
        strategy: Who plans.
        options: The strategy's own, already parsed.
        tools: What the search calls on.
        floor: Lowest acceptable accuracy on labelled selection samples, in (0, 1]; None for any.
    """
    found = Found()
    gap = problem.baseline_seconds - problem.budget_seconds
    aims = [problem.budget_seconds]
    if floor is not None and gap > 0:
        aims += [problem.budget_seconds + share * gap for share in RELAXATIONS]
    for aim in aims:
        trial = _aim(replace(problem, budget_seconds=aim), strategy, options, tools, found)
        if trial is not None and _holds(trial.score, floor):
            found.best = trial
            return found
        if tools.seconds_left() <= 0:
            break
    return found


def _aim(problem: Problem, strategy: Strategy, options: Options, tools: Tools, found: Found) -> Trial | None:
    candidate = _confirmed(problem, strategy, options, tools, found)
    if candidate is None:
        return None
    tuned = tools.tune(candidate)
    if tuned is None:
        return next(trial for trial in reversed(found.trials) if trial.candidate is candidate)
    trial = Trial(candidate, tuned.graph, tuned.after, tuned)
    found.trials.append(trial)
    return trial


def _confirmed(problem: Problem, strategy: Strategy, options: Options, tools: Tools, found: Found) -> Candidate | None:
    """Returns a candidate whose exported file keeps the budget, or the closest when the aim cannot be tightened."""
    candidate = None
    for _ in range(AIM_ROUNDS):
        candidates = [c for c in strategy.search(problem, options) if c.plan.steps]
        found.trials += [Trial(c, c.graph, c.score) for c in candidates]
        if not candidates:
            return candidate
        candidate = choose(candidates, problem.budget_seconds)
        timing = tools.time(candidate.graph, problem.budget_seconds)
        reached_floor = candidate.seconds is not None and candidate.seconds > problem.budget_seconds
        if timing.met or reached_floor or tools.seconds_left() <= 0:
            break
        tighter = problem.budget_seconds * min(1.0, timing.limit_seconds / timing.seconds) * AIM_MARGIN
        problem = replace(problem, budget_seconds=tighter)
    return candidate


def choose(candidates: Sequence[Candidate], budget_seconds: float) -> Candidate:
    """Returns the candidate of least divergence within the budget; the fastest where none is within it."""
    within = [c for c in candidates if c.seconds is not None and c.seconds <= budget_seconds]
    if within:
        return min(within, key=lambda c: c.score.divergence)
    return min(candidates, key=lambda c: float("inf") if c.seconds is None else c.seconds)


def _holds(score: Score, floor: float | None) -> bool:
    return floor is None or score.accuracy is None or score.accuracy >= floor
