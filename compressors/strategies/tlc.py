"""`tlc`: batch norms say what becomes of every channel of an activation, and a trial says which activations matter.

Source: Liao, Hezbri, Quetu, Nguyen, Tartaglione, "Till the Layers Collapse: Compressing a Deep Neural Network Through
the Lenses of Batch Normalization Layers", AAAI 2025. A channel that is mostly on passes, one that is mostly off becomes
a constant. What is different by default: the constant is the channel's mean output, and of the two the one that errs
less is taken; trials are judged by the network's decisions on fixed samples; an activation goes where operators then
merge and the device gains; what follows is refitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from compressors.analysis.segments import Refusal
from compressors.batches import count, in_order
from compressors.channel_line import identity_line
from compressors.collapse import linearise, site_statistics
from compressors.memory import key_of, remembered
from compressors.score import Reference
from compressors.scores.likelihood import channel_lines, likelihoods
from compressors.scores.trial import Trials
from compressors.signature import fingerprint
from compressors.strategies import parity_recipes
from compressors.strategies.fitted import mask_input, site_lines
from compressors.strategies.parity import ParitySearch, ParitySettings, merge_cuts, taught
from compressors.strategies.parity_tlc import PublishedTrials
from compressors.strategies.rounds import Look, RoundSearch, State, round_cuts, round_settings

if TYPE_CHECKING:
    from compressors.analysis.segments import Site
    from compressors.channel_line import Line
    from compressors.graph import Graph
    from compressors.problem import Problem, Search
    from compressors.strategies.options import TlcOptions
    from compressors.table import Alternative

NAME = "tlc"
_JUDGED_ON = 256


@final
@dataclass(frozen=True)
class Trial:
    """TLC's idea of what matters (`compressors.strategies.rounds.SiteMethod`)."""

    problem: Problem
    options: TlcOptions

    def look(
        self,
        state: State,
        sites: Sequence[Site],
        alternatives: Sequence[Alternative],  # noqa: ARG002
        needed: float,  # noqa: ARG002
    ) -> Look:
        """Returns how much further from the original's decisions the network gets without each site, in nats."""
        problem, lines, names = self.problem, self._lines(state.graph, sites), [site.node for site in sites]
        data = count(problem.calibration), count(problem.selection), problem.task
        key = key_of(NAME, *map(fingerprint, (problem.graph, state.graph)), names, self.options, data)
        scores = remembered(problem.memory, key, names, lambda: self._gaps(state.graph, names, lines))
        return Look(scores, state, lambda chosen: {s.node: lines[s.node] for s in chosen if s.node in lines})

    def _gaps(self, graph: Graph, names: Sequence[str], lines: Mapping[str, Line]) -> dict[str, float]:
        """Returns how much each site's absence adds to the divergence, at least 0."""
        problem = self.problem
        reference = Reference.of(problem.graph, problem.selection, _JUDGED_ON, 64, problem.task)

        def without(network: Graph, names: tuple[str, ...]) -> Graph:
            return linearise(network, {name: lines.get(name) or identity_line() for name in names})

        trials = Trials(graph, without, lambda network: reference.score(network.module).divergence)
        return {name: max(0.0, gap) for name, gap in trials.gaps(names).items()}

    def _lines(self, graph: Graph, sites: Sequence[Site]) -> Mapping[str, Line]:
        """Returns a line per site: its channels passed on, or made constant."""
        if not sites:
            return {}
        if self.options.channels == "fitted":
            return site_lines(graph, sites, self.options.way, self.problem.calibration)
        batches = (batch.inputs for batch in in_order(self.problem.calibration, 128, self.options.calibration_samples))
        statistics = site_statistics(graph, batches, sites, mask_input(graph))
        found = likelihoods(graph, sites, statistics)
        return {name: channel_lines(one) for name, one in found.items() if not isinstance(one, Refusal)}


def begin(problem: Problem, options: TlcOptions) -> Search:
    """Starts a search among merges."""
    if options.parity:
        cuts = [cut for _, cut in merge_cuts(problem, options.span, options.max_kernel) if not cut.step.pruned]
        recipes = parity_recipes.tlc(problem.graph)
        settings = ParitySettings(NAME, recipes.final, options.selection_samples, options.margin)
        return ParitySearch(problem, cuts, PublishedTrials(taught(problem, recipes.way)), settings)
    return RoundSearch(problem, round_cuts(options, problem), Trial(problem, options), round_settings(options, NAME))
