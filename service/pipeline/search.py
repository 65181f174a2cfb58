"""Looks for the network to ship: plan, check on the device, fine-tune; again with another aim if need be.

Where others wait behind a search (`compressors.problem.Staged`), they get what time it leaves, and theirs ships only if
it is measured to be better: what the first search comes to, it comes to as if it were alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from compressors.errors import SurgeryError
from compressors.graph import Graph
from compressors.plan import Step
from compressors.problem import Candidate, Problem, Score, Search, Staged
from compressors.tune import Tuned
from service.judging.quality import Goal

AIM_ROUNDS = 3
"""How often an exported network is timed, and the aim tightened when it misses what its structure promised."""

SAFE = 0.99
"""Share of the budget that an exported network has to keep here, so that the final measurement agrees."""

BOLD = 0.5
"""A network within the budget, though closer to it than `SAFE`, is kept if it does less than this share of the harm of
the one that would take its place."""

TIGHTEN = 0.985
RELAXATIONS = (1 / 3, 2 / 3)
"""How far between budget and original to go when nothing within the budget holds the floor."""


@dataclass(frozen=True)
class Trial:
    """One network that was tried.

    Attributes:
        candidate: How it was made and how it scored before fine-tuning.
        graph: What may be shipped: the fine-tuned graph where that is better.
        score: Of `graph`, on the selection samples.
        seconds: Of the exported file; None where only the structure was timed.
        tuned: What fine-tuning did, None without; its `improved` says whether `graph` is from there.
        refusal: Why it cannot be shipped, None where nothing is known against it.
    """

    candidate: Candidate
    graph: Graph
    score: Score
    seconds: float | None = None
    tuned: Tuned | None = None
    refusal: str | None = None


@dataclass(frozen=True)
class Tools:
    """What the search calls on; each takes its part of the job from the pipeline.

    Attributes:
        time: Exports a graph, times it beside the original in a fresh process, and returns its seconds; a
            `SurgeryError` says that the file does not compute what the graph does.
        tune: Fine-tunes a candidate, or returns None where fine-tuning is off or the time is up.
        seconds_left: Until the job must wind up.
        renewed: Returns the problem with clocks that share out what time is left now; None: others do not get any.
    """

    time: Callable[[Graph], float]
    tune: Callable[[Candidate], Tuned | None]
    seconds_left: Callable[[], float]
    renewed: Callable[[], Problem] | None = None


@dataclass
class Found:
    """What a search came to.

    Attributes:
        trials: In the order that they were made.
        best: Of these.
        aim: What the best one was made for, in seconds; what it takes where it was gone back to.
        floor_seconds: The lowest latency in reach.
        planning_seconds: The longest that planning for one aim took.
    """

    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None
    aim: float | None = None
    floor_seconds: float | None = None
    planning_seconds: float = 0.0

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Notes candidates that were not seen before."""
        known = {trial.candidate.plan.steps for trial in self.trials}
        self.trials += [Trial(c, c.graph, c.score) for c in candidates if c.plan.steps not in known]

    def update(self, candidate: Candidate, seconds: float | None = None, tuned: Tuned | None = None) -> Trial:
        """Adds what was found out about a candidate that is noted already, and returns its trial."""
        steps = candidate.plan.steps
        index = next(i for i, trial in enumerate(self.trials) if trial.candidate.plan.steps == steps)
        old = self.trials[index]
        new = replace(old, seconds=old.seconds if seconds is None else seconds, tuned=tuned or old.tuned)
        self.trials[index] = new
        return new

    def refuse(self, candidate: Candidate, reason: str) -> None:
        """Notes why a candidate cannot be shipped."""
        index = next(i for i, t in enumerate(self.trials) if t.candidate.plan.steps == candidate.plan.steps)
        self.trials[index] = replace(self.trials[index], refusal=reason)

    def fall_back(self, reason: str) -> Trial | None:
        """Refuses the best network, and returns it as it was before fine-tuning, which is the best now.

        None where it was not fine-tuned: then there is nothing to fall back to.
        """
        best = self.best
        if best is None or best.graph is best.candidate.graph:
            return None
        at = next(i for i, trial in enumerate(self.trials) if trial is best)
        self.trials[at] = replace(best, refusal=reason)
        self.best = next(trial for trial in self.trials if trial.graph is best.candidate.graph)
        return self.best

    @property
    def refusals(self) -> list[str]:
        """Returns why each network cannot be shipped; empty where one could."""
        said = [trial.refusal for trial in self.trials if trial.refusal is not None]
        return said if len(said) == len(self.trials) else []

    @property
    def refused(self) -> set[tuple[Step, ...]]:
        """Returns the plans of what cannot be shipped."""
        return {t.candidate.plan.steps for t in self.trials if t.refusal is not None and t.graph is t.candidate.graph}


def search(problem: Problem, strategy: Search, tools: Tools, goal: Goal) -> Found:
    """Returns every network tried and the one to ship.

    Without a floor that is the best one within the budget, or the fastest there is. With one, it is the
    fastest that holds the floor on the selection samples: what was made for the budget, for a relaxed one, or what held
    it before anything was fine-tuned.

    Args:
        problem: The job as the strategy sees it.
        strategy: Who plans: a strategy's search on the same problem.
        tools: What the search calls on.
        goal: The figure that counts, and the worst acceptable value of it on the selection samples.
    """
    found = Found()
    gap = problem.baseline_seconds - problem.budget_seconds
    aims = [problem.budget_seconds]
    if goal.floor is not None and gap > 0:
        aims += [problem.budget_seconds + share * gap for share in RELAXATIONS]
    for aim in aims:
        trial = _aim(aim, strategy, tools, found)
        if trial is not None and goal.holds(goal.of(trial.score)):
            found.best, found.aim = trial, aim
            break
        if tools.seconds_left() <= 0:
            break
    if goal.floor is not None and found.aim != aims[0]:
        _go_back(tools, goal, found)
    stage: Search | None = strategy
    while isinstance(stage, Staged) and tools.renewed is not None and tools.seconds_left() > found.planning_seconds:
        stage = stage.others(tools.renewed())
        if stage is not None:
            _challenge(aims, stage, tools, goal, found)
    return found


def _go_back(tools: Tools, goal: Goal, found: Found) -> None:
    """Puts the fastest network that holds the floor as it is in the place of a slower best one, or of none."""
    known = [trial.candidate for trial in found.trials if trial.tuned is None and goal.holds(goal.of(trial.score))]
    for candidate in sorted(known, key=lambda one: math.inf if one.seconds is None else one.seconds):
        best = math.inf if found.best is None else found.best.seconds or math.inf
        if candidate.plan.steps in found.refused or (candidate.seconds or math.inf) >= best:
            continue
        trial = _timed(candidate, tools, found)
        if trial is not None and (trial.seconds or math.inf) < best:
            found.best, found.aim = trial, trial.seconds
            return


def _challenge(aims: Sequence[float], others: Search, tools: Tools, goal: Goal, found: Found) -> None:
    """Puts another search's network in the place of the best one where it is measured to be better."""
    for aim in aims:
        if found.aim is not None and aim > found.aim:
            return
        trial = _aim(aim, others, tools, found)
        if trial is not None and goal.holds(goal.of(trial.score)) and _replaces(trial, aim, found):
            found.best, found.aim = trial, aim
        if tools.seconds_left() <= 0:
            return


def _replaces(trial: Trial, aim: float, found: Found) -> bool:
    """Says whether a network that was made for an aim is better than the best one.

    A smaller aim than the best one's, kept, is better; so is to be less above the same aim, and at last the score.
    """
    if found.best is None or found.aim is None:
        return True
    mine, theirs = _over(trial, aim), _over(found.best, aim)
    return mine < theirs if mine != theirs else trial.score.better_than(found.best.score)


def _aim(aim: float, strategy: Search, tools: Tools, found: Found) -> Trial | None:
    begun = tools.seconds_left()
    trial = _confirmed(aim, strategy, tools, found)
    if trial is None:
        return None
    before = tools.seconds_left()
    found.planning_seconds = max(found.planning_seconds, begun - before if math.isfinite(begun) else 0.0)
    best = _tuned(trial, tools, found)
    took = before - tools.seconds_left()
    for rival in _rivals(best, aim, found):
        if best.tuned is None or tools.seconds_left() <= took:
            break
        timed = _timed(rival, tools, found)
        if timed is not None and (timed.seconds or 0.0) <= SAFE * aim:
            other = _tuned(timed, tools, found)
            best = other if other.score.better_than(best.score) else best
    return best


def _tuned(trial: Trial, tools: Tools, found: Found) -> Trial:
    """Returns a trial after fine-tuning; as it was where that is off or gains nothing."""
    tuned = tools.tune(trial.candidate)
    if tuned is None:
        return trial
    if not tuned.improved:
        return found.update(trial.candidate, tuned=tuned)
    better = Trial(trial.candidate, tuned.graph, tuned.after, trial.seconds, tuned)
    found.trials.append(better)
    return better


def _rivals(best: Trial, aim: float, found: Found) -> list[Candidate]:
    """Returns the best candidate within the aim of each strategy not trained yet: training may turn the order round."""
    trained = {best.candidate.plan.strategy, *(t.candidate.plan.strategy for t in found.trials if t.tuned is not None)}
    rivals = dict[str, Candidate]()
    for trial in sorted(found.trials, key=lambda one: one.candidate.score.divergence):
        candidate = trial.candidate
        within = candidate.seconds is not None and candidate.seconds <= aim
        if within and candidate.plan.strategy not in trained and candidate.plan.steps not in found.refused:
            rivals.setdefault(candidate.plan.strategy, candidate)
    return [rival for rival in rivals.values() if rival.plan.steps != best.candidate.plan.steps]


def _confirmed(aim: float, strategy: Search, tools: Tools, found: Found) -> Trial | None:
    """Returns a candidate whose exported file keeps the aim, or the closest when the aim cannot be tightened.

    One that keeps it by less than `SAFE` gives way to one that keeps it safely, unless that is far worse, or planning
    for it would take the time that training needs.
    """
    timed: list[Trial] = []
    tightened = aim
    for _ in range(AIM_ROUNDS):
        begun = tools.seconds_left()
        candidates = [c for c in strategy.candidates(tightened) if c.plan.steps]
        found.add(candidates)
        trial = _first_sound(candidates, tightened, tools, found)
        if trial is None:
            # What is planned for less than any of these took is made of other cuts.
            if not candidates or tools.seconds_left() <= 0:
                break
            tightened = TIGHTEN * min(tightened, *(one.seconds or tightened for one in candidates))
            continue
        timed.append(trial)
        while (known := _faster(trial, aim, found)) is not None and tools.seconds_left() > 0:
            other = _timed(known, tools, found)
            if other is not None:
                trial = other
                timed.append(trial)
        candidate, seconds = trial.candidate, trial.seconds or 0.0
        out_of_reach = candidate.seconds is not None and candidate.seconds > tightened
        left = tools.seconds_left()
        enough = SAFE * aim if math.isinf(left) or left > begun - left else aim
        if seconds <= enough or out_of_reach or left <= 0:
            break
        # The file takes `seconds` where its structure took `promised`: aim for a structure that much faster.
        promised = min(candidate.seconds or tightened, tightened)
        tightened = promised * min(1.0, aim / seconds) * TIGHTEN
    safe = min(timed, key=lambda trial: _distance(trial, aim), default=None)
    bold = [trial for trial in timed if _over(trial, aim) == 0 and _far_better(trial, safe)]
    return min(bold, key=lambda trial: trial.score.divergence, default=safe)


def _faster(trial: Trial, aim: float, found: Found) -> Candidate | None:
    """Returns what else was fitted already and should keep an aim that a file misses, the best of it; None without any.

    What takes as much longer than its structure promised as that file does has to be within the aim, not far worse,
    and not timed yet. To look at such a file costs seconds, to plan again many times that.
    """
    promised = trial.candidate.seconds
    if promised is None or _over(trial, aim) == 0:
        return None
    longer = (trial.seconds or 0.0) / promised
    known = [
        one.candidate
        for one in found.trials
        if one.seconds is None
        and one.candidate.plan.steps not in found.refused
        and (one.candidate.seconds or math.inf) * longer <= aim
        and not _far_better(trial, one)
    ]
    return min(known, key=lambda one: one.score.divergence, default=None)


def _far_better(trial: Trial, other: Trial | None) -> bool:
    return other is not None and trial.score.divergence < BOLD * other.score.divergence


def _first_sound(candidates: Sequence[Candidate], budget: float, tools: Tools, found: Found) -> Trial | None:
    """Returns the first of the candidates, in the order of choice, whose file computes what its graph does, timed."""
    left = [one for one in candidates if one.plan.steps not in found.refused]
    while left:
        candidate = choose(left, budget)
        trial = _timed(candidate, tools, found)
        if trial is not None:
            return trial
        left = [one for one in left if one is not candidate]
    return None


def _timed(candidate: Candidate, tools: Tools, found: Found) -> Trial | None:
    """Returns a candidate's trial with its file's seconds, None where it cannot be shipped."""
    try:
        return found.update(candidate, seconds=tools.time(candidate.graph))
    except SurgeryError as exc:
        found.refuse(candidate, str(exc))
        return None


def _distance(trial: Trial, aim: float) -> tuple[float, float]:
    """Orders timed trials: safely within the aim before just within it before the least above it; then by score."""
    unsafe = 0.0 if (trial.seconds or 0.0) <= SAFE * aim else 1e-9
    return _over(trial, aim) or unsafe, trial.score.divergence


def _over(trial: Trial, aim: float) -> float:
    """Returns by which share of the aim a trial is above it; 0 where it is not."""
    return max(0.0, (trial.seconds or 0.0) / aim - 1)


def choose(candidates: Sequence[Candidate], budget_seconds: float) -> Candidate:
    """Returns the candidate of least divergence within the budget; the fastest where none is within it."""
    within = [c for c in candidates if c.seconds is not None and c.seconds <= budget_seconds]
    if within:
        return min(within, key=lambda c: c.score.divergence)
    return min(candidates, key=lambda c: float("inf") if c.seconds is None else c.seconds)
