"""LayerMerge as published: a short training for every entry (i, j, k), and one dynamic programme over times cut down.

Source: Kim et al., ICML 2024. An entry is one merge with its pruned operators; everything else stays as it is, padding
first, not yet merged. It is trained for a while, and

    I[i, j, k] = exp(accuracy after - accuracy of the original),    1 for an operator that stays    (sections 3.2, 1.4)

A plan maximises the sum of I within the budget. Operators are counted along the main path, as positions are: shortcuts
hold none. With n of them inside, taking an entry loses n - I of the sum, and that is what is minimised. Times are cut
to ticks downwards, and the budget is a share of the table's sum, without any correction by whole networks: plans may
come out slower than asked for, as published.

What differs: the published code trains an epoch of 4 % of ImageNet per entry. Here the entries share half of the job's
training time evenly, those that save most first; what time does not reach is not offered. An operator that stays has
exactly 1 (the published code re-initialises and trains it). Without labels the divergence stands in for lost accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from compressors.choose import Choice, Chooser
from compressors.plan import Plan
from compressors.problem import Candidate
from compressors.score import Reference
from compressors.scores.importance import accuracy_change, importance, loss_change
from compressors.strategies.parity import ParitySettings, measured_seconds, rank, trainer_of
from compressors.surgery import apply
from compressors.table import measure_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import fx

    from compressors.analysis.merges import MergeRegion
    from compressors.plan import Step
    from compressors.problem import Problem, Score
    from compressors.table import Cut

_SHARE = 0.5
"""Of the time for training, what goes into the entries; the rest is for the network that is chosen."""


@final
class EntrySearch:
    """One search (`compressors.problem.Search`). Table and importances are kept between budgets."""

    def __init__(self, problem: Problem, entries: Sequence[tuple[MergeRegion, Cut]], settings: ParitySettings) -> None:
        """Times the network's stretches and every entry."""
        self._problem, self._settings = problem, settings
        self._report(0.0, "timing the network's stretches and what they could merge to")
        self._table = measure_table(problem, [cut for _, cut in entries])
        self._chooser = Chooser(problem.graph, problem.analysis, self._table, "down")
        nodes = {node.name: node for node in problem.graph.module.graph.nodes}
        self._operators = {cut.step: main_path(nodes, region) for region, cut in entries}
        self._losses: dict[Step, float] | None = None
        self._found: dict[tuple[Step, ...], Candidate] = {}

    def floor(self) -> Plan:
        """Returns the plan with everything merged that can be, its latency measured."""
        self._report(0.1, "measuring how far latency can go down")
        return self._plan(self._chooser.fastest())

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns the plan of greatest importance for the budget, and those of earlier budgets, best first.

        Raises:
            OptionError: The job does not train.
        """
        problem, settings = self._problem, self._settings
        reference = Reference.of(problem.graph, problem.selection, settings.selection_samples, 64, problem.task)
        if self._losses is None:
            self._losses = self._trained(reference)
        share = budget_seconds * (1 - settings.margin) / problem.baseline_seconds
        choice = self._chooser.least_harm(self._losses, self._chooser.whole * share) or self._chooser.fastest()
        if choice.steps not in self._found:
            self._report(0.9, "putting the plan together")
            graph, plan = apply(problem.graph, choice.steps), self._plan(choice)
            score = reference.score(graph.module)
            self._found[choice.steps] = Candidate(plan, graph, score, plan.predicted_seconds, settings.recipe)
        return sorted(self._found.values(), key=lambda one: rank(one, budget_seconds))

    def _trained(self, reference: Reference) -> dict[Step, float]:
        """Returns what each entry loses of the sum of importances, after a short training of it alone."""
        problem, train = self._problem, trainer_of(self._problem, self._settings.name)
        before = reference.score(problem.graph.module)
        entries = sorted(self._table.alternatives, key=lambda one: -one.saved)
        found: dict[Step, float] = {}
        for number, entry in enumerate(entries):
            if problem.seconds_left() <= 0:
                break
            self._report(0.1 + 0.8 * number / len(entries), f"entry {number + 1} of {len(entries)}: {entry.step.label}")
            part = _SHARE / len(entries)
            graph = train(apply(problem.graph, [entry.step]), part / (1 - number * part))
            worth = importance(change(reference.score(graph.module), before))
            found[entry.step] = self._operators[entry.step] - worth
        return found

    def _plan(self, choice: Choice) -> Plan:
        seconds = measured_seconds(self._problem, choice.steps)
        return Plan(self._settings.name, choice.steps, False, seconds, choice.harm)

    def _report(self, fraction: float, message: str) -> None:
        self._problem.progress(fraction, message)


def main_path(nodes: Mapping[str, fx.Node], region: MergeRegion) -> int:
    """Returns how many operators lie on the path through a region that has most of them: what shortcuts go around.

    Args:
        nodes: Of the network, by name.
        region: Of the network.
    """
    depth = {region.entry: 0}
    for name in region.nodes:
        before = max((depth[source.name] for source in nodes[name].all_input_nodes if source.name in depth), default=0)
        depth[name] = before + (name in region.operators)
    return depth[region.exit]


def change(after: Score, before: Score) -> float:
    """Returns what a training of a merged network gained: of accuracy, or relative of a loss; negative for harm."""
    if after.metric is None or before.metric is None:
        return -after.divergence
    if after.higher_is_better:
        return accuracy_change(after.metric, before.metric)
    return loss_change(after.metric, before.metric)
