"""A search in rounds: score the activations, take some out, train, and score again.

The published methods take activations out one by one and hope for operators to merge. Here every round plans for a
latency of its own on the way down to the budget: the harm of a merge is the sum of the scores of the activations that
it takes out, and the plan is the one of least harm that the device's table allows. So an activation is taken out where
that lets operators merge and the merge is faster, and nowhere else. Kernels grow as operators merge, 3x3 behind 3x3 is
5x5, which on many devices is slower than the two; there, one operator with a smaller kernel is fitted to the stretch,
and its harm is that sum times what the operator misses of the stretch's output.

1. Score every activation that is still there, on the network as it is now. A norm that looks at the sample goes with a
   merge as activations do, and its line is fitted: what that line misses of the norm's output, as a share, is its
   score, on the scale of the activation that the network needs most.
2. Plan for the round's latency (`planner`); merges of what went before cost nothing more.
3. Not in the last round: put lines where the plan takes activations out, and train. Norms stay until they are merged.
4. In the last round: merge in train form (padding moved to the front), refit what follows, and hand the network on to
   be fine-tuned. Where the method has trained the network, it is judged on few samples whether cuts do better in that
   or in the original: little training with activations half gone is a bad start for fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, final

from compressors.analysis.merges import Options as MergeLimits
from compressors.analysis.regions import Reach, merge_space
from compressors.analysis.sites import norm_sites
from compressors.batches import count
from compressors.channel_line import ChannelLine, Line, identity_line
from compressors.collapse import line_name, linearise
from compressors.fit import FitConfig, Refit, RegressionConfig, fit
from compressors.harm import ScreenConfig, missed
from compressors.memory import key_of, remembered, remembered_fit, remembered_for
from compressors.plan import Plan
from compressors.precision import computed_in
from compressors.problem import Candidate
from compressors.score import Reference
from compressors.signature import fingerprint
from compressors.strategies.clocks import fitted_in_time, patience
from compressors.strategies.comparing import Wanted, shortlisted
from compressors.strategies.fitted import JUDGED_ON, rough, site_lines
from compressors.strategies.planner import Measured, Planner
from compressors.strategies.regressed import narrow_cuts
from compressors.surgery import apply
from compressors.table import Cut, region_cuts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compressors.analysis.segments import Site
    from compressors.graph import Graph
    from compressors.plan import Step, Way
    from compressors.problem import Problem
    from compressors.strategies.options import RoundOptions
    from compressors.table import Alternative

_NEAR = (0.8, 1.1)
"""A budget this close to the last one, as a ratio, is planned for without scoring and training again."""
_LEAST_HARM = 1e-6
"""Of any cut, so that of equally harmless plans the one with fewer cuts is taken; above what the solver calls a tie."""
_LEAST_SCORE = 0.3
"""Of any activation in a fitted stretch, beside its own and relative to the one that the network needs most: where a
method says of activations that they are not needed at all, what is missed still tells good operators from bad ones."""
_LEAST_SHARE = 1e-3
"""Of an output, that a fitted operator is taken to miss and to reproduce."""
_MISSED_ON = 64
"""Samples that what is missed is judged on; operators are fitted on three times as many for that."""


@dataclass(frozen=True)
class State:
    """Where a search stands: the network as it is now, and what was taken out of it.

    Attributes:
        graph: With lines where activations were.
        restored: The original's structure with the same weights.
        lines: What took an activation's place, by node name.
    """

    graph: Graph
    restored: Graph
    lines: Mapping[str, Line] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """What a method makes of the activations that are still there.

    Attributes:
        scores: By node name, >= 0; the higher, the more the network needs it.
        state: Where things stand afterwards: a method may train the network to find out.
        lines: What takes an activation's place if it goes, by node name; where there is none, nothing does.
        norms: What takes the place of each norm that some merge dissolves.
    """

    scores: Mapping[str, float]
    state: State
    lines: Callable[[Sequence[Site]], Mapping[str, Line]]
    norms: Mapping[str, Line] = field(default_factory=dict)


class SiteMethod(Protocol):
    """A method's idea of how much an activation matters, and of what takes its place."""

    def look(self, state: State, sites: Sequence[Site], alternatives: Sequence[Alternative], needed: float) -> Look:
        """Returns what the method makes of some activations.

        Args:
            state: The network as it is now.
            sites: Activations that are still in it, and that some merge would take out.
            alternatives: Every merge that is faster than what it replaces.
            needed: Seconds that have to go from the original's latency by the end of the round.
        """
        ...


@dataclass(frozen=True)
class RoundSettings:
    """How the rounds go.

    Attributes:
        name: The strategy's, for its plans.
        rounds: How many, >= 1; one where the job does not train.
        way: What takes the place of activations where cuts are made in the original.
        refit: What is refitted behind the cuts of a candidate.
        calibration_samples: At most this many for lines and fits.
        selection_samples: At most this many for scores.
        plans: How many plans of the last round become candidates.
        comparisons: At most this many plans are made from what others taught, for each budget.
        margin: Share of the budget that is kept free.
    """

    name: str
    rounds: int
    way: Way = "fitted"
    refit: Refit = "all"
    calibration_samples: int = 2048
    selection_samples: int = 1024
    plans: int = 4
    comparisons: int = 64
    margin: float = 0.02


def round_settings(options: RoundOptions, name: str) -> RoundSettings:
    """Returns how the rounds of a strategy go."""
    return RoundSettings(
        name,
        options.rounds,
        options.way,
        options.refit,
        options.calibration_samples,
        options.selection_samples,
        options.plans,
        options.comparisons,
        options.margin,
    )


def round_cuts(options: RoundOptions, problem: Problem) -> list[Cut]:
    """Returns every way in reach to make one operator of a stretch by taking out its activations.

    That is the merge, which is exact once the activations are lines, and where that has a large kernel, one operator
    with a smaller one, fitted to the stretch. No operator is pruned.
    """
    reach = Reach(span=options.span, options=MergeLimits(kernel=options.max_kernel))
    regions = merge_space(problem.graph, reach).regions
    cuts = [cut for region in regions for cut in region_cuts(region, options.way)]
    merges = [cut for cut in cuts if not cut.step.pruned]
    return merges + (narrow_cuts(problem, merges, options.max_kernel) if options.regress else [])


@final
class RoundSearch:
    """One search (`compressors.problem.Search`). Table and measured networks are kept between budgets."""

    def __init__(self, problem: Problem, cuts: Sequence[Cut], method: SiteMethod, settings: RoundSettings) -> None:
        """Times the network's stretches and every merge."""
        self._problem, self._method, self._settings = problem, method, settings
        self._patience = patience(problem)
        self._sites = {site.node: site for site in problem.analysis.sites}
        self._report(0.0, "timing the network's stretches and what they could merge to")
        self._planner = Planner(problem, cuts, settings.margin)
        wanted = {site for one in self._planner.alternatives for site in one.cut.sites}
        self._norms = norm_sites(problem.graph, wanted - set(self._sites))
        self._last: tuple[float, Look] | None = None
        self._noise: Mapping[Step, float] | None = None

    def floor(self) -> Plan:
        """Returns the plan with everything merged that can be, its latency measured."""
        self._report(0.1, "measuring how far latency can go down")
        return self._plan(self._planner.fastest())

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns the plans of the last round for a budget, best first; a budget close to the last one repeats none."""
        problem = self._problem
        if self._last is None or not _NEAR[0] <= budget_seconds / self._last[0] <= _NEAR[1]:
            self._last = (budget_seconds, self._rounds(budget_seconds))
        look = self._last[1]
        self._planner.aim(budget_seconds)
        harms = self._planned(look)
        reference = self._reference(self._settings.selection_samples)
        quick = self._reference(JUDGED_ON).rough(problem.graph, problem.precision)
        look = self._start(look, self._planner.within(harms)[0].choice.steps, quick)

        def judged(steps: Sequence[Step], number: int) -> float:
            self._report(0.9, f"comparing plans, {number}")
            return self._judged(look, steps, quick)

        wanted = Wanted(self._settings.plans, self._settings.comparisons)
        chosen = shortlisted(problem, self._planner, harms, wanted, judged)
        found = fitted_in_time(problem, chosen, lambda one: self._candidate(look, one, reference))
        return sorted(found, key=lambda one: one.score.divergence)

    def _rounds(self, budget_seconds: float) -> Look:
        """Returns what the method makes of the network before the last round's plan."""
        problem = self._problem
        rounds = self._settings.rounds if problem.train is not None else 1
        gap = problem.baseline_seconds - budget_seconds
        look = self._look(State(problem.graph, problem.graph), (1, rounds), gap / rounds)
        for number in range(1, rounds):
            if problem.seconds_left() <= 0:
                break
            self._planner.aim(problem.baseline_seconds - gap * number / rounds)
            harms = self._planned(look)
            state = self._trained(look, self._planner.within(harms)[0], 1 / (rounds - number + 1))
            look = self._look(state, (number + 1, rounds), gap * (number + 1) / rounds)
        return look

    def _planned(self, look: Look) -> dict[Step, float]:
        """Measures the best plans for the present aim; returns the harms that they were made by."""
        harms = self._harms(look)
        self._planner.settle(harms, self._settings.plans - 1)
        return harms

    def _look(self, state: State, number: tuple[int, int], needed: float) -> Look:
        self._report(0.1 + 0.8 * (number[0] - 1) / number[1], f"round {number[0]} of {number[1]}: scoring activations")
        wanted = {site for one in self._planner.alternatives for site in one.cut.sites} - set(state.lines)
        sites = [site for name, site in self._sites.items() if name in wanted]
        look = self._method.look(state, sites, self._planner.alternatives, needed)
        return with_norm_scores(look, self._norms, self._norm_lines(look.state.graph))

    def _harms(self, look: Look) -> dict[Step, float]:
        """Returns the harm of every cut that is in reach."""
        return cut_harms(look, [one.cut for one in self._planner.alternatives], self._noises())

    def _noises(self) -> Mapping[Step, float]:
        """Returns what fitted operators miss of their stretches' outputs in the original, by what they reproduce."""
        if self._noise is None:
            problem = self._problem
            fitted = [one for one in self._planner.alternatives if one.step.kind == "regress"]
            key = key_of("missed", fingerprint(problem.graph), [one.step for one in fitted], count(problem.calibration))

            def judge() -> dict[Step, float]:
                self._report(0.1, "judging fitted operators alone")
                config = ScreenConfig(batch=_MISSED_ON, seed=problem.seed)
                return missed(problem.graph, fitted, problem.calibration, config)

            shares = remembered_for(problem.memory, key, [one.step for one in fitted], judge)
            self._noise = {step: _noise(share) for step, share in shares.items()}
        return self._noise

    def _trained(self, look: Look, one: Measured, share: float) -> State:
        """Returns where things stand when the activations of a plan are gone and the network is trained."""
        lines = self._lines(look, one.choice.steps)
        assert self._problem.train is not None
        self._report(0.1, f"training with {len(lines)} activations gone")
        graph = self._problem.train(linearise(look.state.restored, lines), share)
        return State(graph, restored(self._problem.graph, graph), trained_lines(graph, lines))

    def _lines(self, look: Look, steps: Sequence[Step]) -> dict[str, Line]:
        """Returns what takes the place of the activations that a plan takes out."""
        cuts = {alternative.step: alternative.cut for alternative in self._planner.alternatives}
        gone = {site for step in steps for site in cuts[step].sites if site in self._sites}
        known = {name: line for name, line in look.state.lines.items() if name in gone}
        new = [site for name, site in self._sites.items() if name in gone and name not in known]
        nothing = {site.node: identity_line() for site in new}
        return {**known, **nothing, **(look.lines(new) if new else {})}

    def _reference(self, most: int) -> Reference:
        problem = self._problem
        limit = min(most, self._settings.selection_samples)
        return Reference.of(problem.graph, problem.selection, limit, 64, problem.task)

    def _start(self, look: Look, steps: Sequence[Step], reference: Reference) -> Look:
        """Returns the look with the network that a plan does better in: as it was trained, or the original."""
        graph = self._problem.graph
        if look.state.restored is graph or not steps:
            return look
        self._report(0.9, "judging a plan in the original and in the trained network")

        def lines(sites: Sequence[Site]) -> Mapping[str, Line]:
            return site_lines(graph, sites, self._settings.way, self._problem.calibration)

        original = replace(look, state=State(graph, graph), lines=lines, norms=self._norm_lines(graph))
        return min((look, original), key=lambda each: self._judged(each, steps, reference))

    def _norm_lines(self, graph: Graph) -> dict[str, Line]:
        """Returns what takes the place of the norms that some merge dissolves."""
        return site_lines(graph, self._norms, "fitted", self._problem.calibration)

    def _judged(self, look: Look, steps: Sequence[Step], reference: Reference) -> float:
        """Returns the harm of a plan, done in train form and refitted on few samples."""
        cut, key = self._cut(look, steps), ["divergence"]

        def judge() -> dict[str, float]:
            with computed_in(reference.precision):
                graph = self._fitted(cut, steps, rough(self._fit_config()))
            return {"divergence": reference.score(graph.module).divergence}

        return remembered(self._problem.memory, self._key("judged", cut, steps), key, judge)["divergence"]

    def _candidate(self, look: Look, one: Measured, reference: Reference) -> Candidate:
        """Returns a plan done in train form, refitted and scored."""
        steps = one.choice.steps
        cut = self._cut(look, steps)
        self._report(0.9, "refitting what follows the merges")
        graph = remembered_fit(
            self._problem.memory,
            self._key("fit", cut, steps),
            cut,
            lambda: self._fitted(cut, steps, self._fit_config()),
        )
        return Candidate(self._plan(one), graph, reference.score(graph.module), one.seconds)

    def _cut(self, look: Look, steps: Sequence[Step]) -> Graph:
        return apply(look.state.restored, steps, {**look.norms, **self._lines(look, steps)})

    def _key(self, what: str, cut: Graph, steps: Sequence[Step]) -> str:
        """Returns a key of everything that a fit depends on."""
        problem = self._problem
        data = count(problem.calibration), problem.seed
        return key_of(what, *map(fingerprint, (problem.graph, cut)), tuple(steps), self._settings, data)

    def _fitted(self, cut: Graph, steps: Sequence[Step], config: FitConfig) -> Graph:
        if config.refit == "none" and all(step.kind != "regress" for step in steps):
            return cut
        return fit(self._problem.graph, cut, steps, self._problem.calibration, config).graph

    def _fit_config(self) -> FitConfig:
        problem, settings = self._problem, self._settings
        regression = RegressionConfig(seed=problem.seed, enough=lambda: problem.clock() <= -self._patience)
        return FitConfig(settings.refit, settings.calibration_samples, regression=regression)

    def _plan(self, one: Measured) -> Plan:
        settings = self._settings
        return Plan(settings.name, one.choice.steps, settings.refit != "none", one.seconds, one.choice.harm)

    def _report(self, fraction: float, message: str) -> None:
        self._problem.progress(fraction, message)


def cut_harms(look: Look, cuts: Sequence[Cut], noise: Mapping[Step, float]) -> dict[Step, float]:
    """Returns the harm of cuts: the scores of what each takes out besides the activations gone.

    Args:
        look: At what is still there.
        cuts: Which.
        noise: Of fitted operators, what they miss by what they reproduce. Their scores are multiplied by it, and none
            of these counts as zero.
    """
    least = _LEAST_SCORE * max((score for score in look.scores.values() if math.isfinite(score)), default=0.0)

    def harm(cut: Cut) -> float:
        scores = [look.scores.get(site, 0.0) for site in cut.sites]
        if cut.step not in noise:
            return sum(scores)
        return noise[cut.step] * sum(least + score for score in scores)

    return {cut.step: harm(cut) + _LEAST_HARM for cut in cuts}


def _noise(share: float) -> float:
    """Returns noise over signal of an output of which a share is missed.

    The share itself says too little: on a ResNet-20, cuts that miss 0.14, 0.27, 0.43, 0.56 and 0.67 of their stretch's
    output move the network's by 0.05, 0.2, 0.6, 2.6 and 7 nats.
    """
    return max(_LEAST_SHARE, share) / max(_LEAST_SHARE, 1 - share)


def with_norm_scores(look: Look, norms: Sequence[Site], lines: Mapping[str, Line]) -> Look:
    """Returns a look that has scored norms as well, on the scale of the method's own scores.

    Args:
        look: At the activations.
        norms: Those that merges dissolve.
        lines: Fitted to them; a norm without one is needed as much as anything.
    """
    most = max((score for score in look.scores.values() if math.isfinite(score)), default=0.0) or 1.0
    scores = {norm.node: most * misfit(lines.get(norm.node)) for norm in norms}
    return replace(look, scores={**look.scores, **scores}, norms=lines)


def misfit(line: Line | None) -> float:
    """Returns a line's error, in [0, 1]; 1 where it is not known."""
    error = None if line is None else line.error
    return 1.0 if error is None or not math.isfinite(error) else min(1.0, max(0.0, error))


def restored(original: Graph, trained: Graph) -> Graph:
    """Returns the original's structure with the weights that a network without some of its activations was trained to.

    Args:
        original: Whose structure to take.
        trained: `linearise`d and trained; its modules kept their names.
    """
    copy = original.copied()
    weights = trained.module.state_dict()
    copy.module.load_state_dict({name: weights.get(name, value) for name, value in copy.module.state_dict().items()})
    return copy


def trained_lines(graph: Graph, lines: Mapping[str, Line]) -> dict[str, Line]:
    """Returns what training made of the lines that were put into a graph, by site."""
    modules = dict(graph.module.named_modules())
    found: dict[str, Line] = {}
    for site, line in lines.items():
        module = modules.get(line_name(site))
        found[site] = line
        if isinstance(module, ChannelLine):
            slope, intercept = (value.detach().double().cpu() for value in (module.slope, module.intercept))
            found[site] = replace(line, slope=slope, intercept=intercept, error=None)
    return found
