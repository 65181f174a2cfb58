"""The papers' loop: activations go by the paper's score alone, the network is trained, and every network is kept.

Unlike in `rounds`, the device has no say in which activations go:

1. The method takes out some activations of the network as it is now, identities in their place, and trains it.
2. What became linear is merged where the engine can and the device gains (the published codes merge nothing, or by
   hand). An activation that no merge takes out is passed by all the same. Merging follows the choice, never leads it.
3. The network is measured and scored, and is a candidate; until the budget is met, time is up or nothing is left, or
   the accuracy floor was broken by three networks in a row: curves go up again by a point now and then. All networks
   before stay candidates, so that the last that held the floor can be gone back to.

Merges whose padding moves to the front change the network at its borders after it was trained, as published for Layer
Folding; the job's fine-tuning repairs that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, final

from compressors.analysis.merges import Options as MergeLimits
from compressors.analysis.regions import Reach, merge_space
from compressors.choose import Chooser
from compressors.errors import OptionError
from compressors.plan import Plan, Step
from compressors.problem import Candidate
from compressors.score import Reference
from compressors.scores.entropy import KINDS
from compressors.strategies.rounds import restored
from compressors.surgery import apply
from compressors.table import Cut, Table, measure_table, region_cuts, structure

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import torch

    from compressors.analysis.merges import MergeRegion
    from compressors.analysis.segments import Site
    from compressors.graph import Graph
    from compressors.problem import Problem, Trainer
    from compressors.tune.recipe import Recipe
    from compressors.tune.regulariser import Regulariser


_PATIENCE = 2
"""How many networks in a row that break the accuracy floor are looked past."""


@dataclass(frozen=True, eq=False)
class Stage:
    """Where a search stands.

    Attributes:
        graph: The network as it is now, activations that are gone passed by.
        gone: Node names of the activations that are gone.
        kept: Node names of those that were tried and stay.
        rows: Weights that stay zero while training (TLC): module path to which rows, bool, (channels,).
    """

    graph: Graph
    gone: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    rows: Mapping[str, torch.Tensor] = field(default_factory=dict)


class ParityMethod(Protocol):
    """How a paper takes activations out."""

    def sites(self) -> Sequence[Site]:
        """Returns every activation that may go, in the order in which they run."""
        ...

    def advance(self, stage: Stage, waiting: Sequence[Site]) -> Stage | None:
        """Returns the network with some more activations gone, trained; None where the paper would stop.

        Args:
            stage: The network as it is now; not changed.
            waiting: Activations of which nothing was decided yet; at least one.
        """
        ...


@dataclass(frozen=True)
class ParitySettings:
    """How a search in parity goes.

    Attributes:
        name: The strategy's, for its plans.
        recipe: How the paper fine-tunes what was found.
        selection_samples: At most this many for scores, >= 1.
        margin: Share of the budget that is kept free, in [0, 1).
    """

    name: str
    recipe: Recipe
    selection_samples: int = 1024
    margin: float = 0.02


@final
class ParitySearch:
    """One search (`compressors.problem.Search`). Asked for a smaller budget, it goes on from where it stopped."""

    def __init__(self, problem: Problem, cuts: Sequence[Cut], method: ParityMethod, settings: ParitySettings) -> None:
        """Times the network's stretches and every merge."""
        self._problem, self._method, self._settings = problem, method, settings
        self._report(0.0, "timing the network's stretches and what they could merge to")
        self._table = measure_table(problem, cuts)
        self._order = {node.name: node for node in problem.graph.module.graph.nodes}
        self._sites = tuple(method.sites())
        self._stage = Stage(problem.graph)
        self._over, self._broken = False, 0
        self._found: list[Candidate] = []

    def floor(self) -> Plan:
        """Returns the plan with every activation gone that may go, its latency measured."""
        self._report(0.1, "measuring how far latency can go down")
        steps = self._steps({site.node for site in self._sites})
        return self._plan(steps, measured_seconds(self._problem, steps))

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns every network on the way to the budget: within it by divergence, then the others by latency.

        Raises:
            OptionError: The job does not train.
        """
        problem, settings = self._problem, self._settings
        trainer_of(problem, settings.name)
        target = budget_seconds * (1 - settings.margin)
        reference = Reference.of(problem.graph, problem.selection, settings.selection_samples, 64, problem.task)
        while not self._over and not any(_seconds(one) <= target for one in self._found):
            self._advance(reference)
        return sorted(self._found, key=lambda one: rank(one, budget_seconds))

    def _advance(self, reference: Reference) -> None:
        """Takes the next step, and keeps its network if anything went."""
        before = self._stage
        waiting = [site for site in self._sites if site.node not in {*before.gone, *before.kept}]
        begun = before.gone or before.kept
        if not waiting or (begun and self._problem.seconds_left() <= 0):
            self._over = True
            return
        done = 1 - len(waiting) / len(self._sites)
        self._report(0.1 + 0.9 * done, f"{len(before.gone)} of {len(self._sites)} activations gone: choosing the next")
        after = self._method.advance(before, waiting)
        if after is None:
            self._over = True
            return
        self._stage = after
        if after.gone != before.gone:
            candidate = self._candidate(after, reference)
            self._found.append(candidate)
            self._broken = 0 if self._problem.holds(candidate.score) else self._broken + 1
            self._over = self._broken > _PATIENCE

    def _candidate(self, stage: Stage, reference: Reference) -> Candidate:
        """Returns the stage's network in train form, measured and scored."""
        steps = self._steps(stage.gone)
        graph = apply(restored(self._problem.graph, stage.graph), steps)
        plan = self._plan(steps, measured_seconds(self._problem, steps))
        score = reference.score(graph.module)
        return Candidate(plan, graph, score, plan.predicted_seconds, self._settings.recipe)

    def _steps(self, gone: Collection[str]) -> tuple[Step, ...]:
        """Returns the merges that gain most of those that need no other activation gone, and the rest passed by."""
        problem, table = self._problem, self._table
        possible = tuple(one for one in table.alternatives if one.step.sites and {*one.step.sites} <= {*gone})
        merges = Chooser(problem.graph, problem.analysis, Table(table.kept, possible)).fastest().steps
        merged = {site for step in merges for site in step.sites}
        passed = [Step("remove", self._order[site].all_input_nodes[0].name, site) for site in {*gone} - merged]
        places = {name: place for place, name in enumerate(self._order)}
        return tuple(sorted((*merges, *passed), key=lambda step: places[step.exit]))

    def _plan(self, steps: tuple[Step, ...], seconds: float) -> Plan:
        return Plan(self._settings.name, steps, refit=False, predicted_seconds=seconds)

    def _report(self, fraction: float, message: str) -> None:
        self._problem.progress(fraction, message)


def rectifiers(graph_sites: Sequence[Site]) -> tuple[Site, ...]:
    """Returns the activations that the published codes consider: ReLU, ReLU6 and GELU, per call."""
    return tuple(site for site in graph_sites if site.kind in KINDS)


def merge_cuts(problem: Problem, span: int, kernel: int) -> list[tuple[MergeRegion, Cut]]:
    """Returns every merge within reach, identities in the place of activations, with its region.

    Args:
        problem: What is to be made faster.
        span: Most positions of a chain that one merge covers, >= 1.
        kernel: Largest kernel of a merged convolution, >= 1.
    """
    reach = Reach(span=span, options=MergeLimits(kernel=kernel))
    regions = merge_space(problem.graph, reach).regions
    return [(region, cut) for region in regions for cut in region_cuts(region, "identity")]


def taught(problem: Problem, recipe: Recipe) -> Problem:
    """Returns the problem with trainings on the way that go by a paper's recipe."""
    return problem if problem.train is None else replace(problem, train=partial(problem.train, recipe=recipe))


def trainer_of(problem: Problem, name: str) -> Trainer:
    """Returns the job's training.

    Raises:
        OptionError: There is none.
    """
    if problem.train is None:
        raise OptionError(
            "parity",
            f"Strategy {name} with parity=true trains as its paper does, but this job does not train. Give it training "
            "samples and time for training, or leave parity out.",
        )
    return problem.train


def measured_seconds(problem: Problem, steps: Sequence[Step]) -> float:
    """Returns the latency of the network that the steps lead to, measured beside the original."""
    graphs = [structure(problem.graph, some) for some in ((), steps)]
    original, seconds = problem.timer.networks([(graph.module, graph.inputs) for graph in graphs])
    # Machines drift: what counts is the ratio to the original at the same moment.
    return seconds * problem.baseline_seconds / original


def train_evenly(
    problem: Problem, name: str, graph: Graph, waiting: Sequence[Site], regulariser: Regulariser | None = None
) -> Graph:
    """Returns a network after one of as many equal trainings as activations wait.

    Of the passes, fine-tuning is left as many as each of them gets; the time that planning may still use is theirs.

    Args:
        problem: Whose training, and whose planning time.
        name: The strategy's.
        graph: What is trained; not changed.
        waiting: Activations of which nothing was decided yet, those that have just gone included; at least one.
        regulariser: What shapes the training.

    Raises:
        OptionError: The job does not train.
    """
    seconds = max(0.0, problem.seconds_left()) / len(waiting)
    return trainer_of(problem, name)(graph, 1 / (len(waiting) + 1), regulariser, seconds)


def rank(candidate: Candidate, budget_seconds: float) -> tuple[bool, float]:
    """Returns what candidates are sorted by: within the budget by divergence, then the others by latency."""
    over = _seconds(candidate) > budget_seconds
    return over, _seconds(candidate) if over else candidate.score.divergence


def _seconds(candidate: Candidate) -> float:
    return float("inf") if candidate.seconds is None else candidate.seconds
