"""`easier`: activations whose inputs hardly ever change sign go first.

Source: Quetu, Liao, Tartaglione, "The Simpler The Better: An Entropy-Based Importance Metric To Reduce Neural Networks'
Depth", ECML PKDD 2024. What is different by default: signs are counted over all batches on fixed data in evaluation
mode; an activation goes where operators then merge and the device gains; the best line takes its place; what follows is
refitted. The paper removes one activation after a whole training each, and merges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from compressors.batches import count, in_order
from compressors.memory import key_of, remembered
from compressors.scores.entropy import EntropyConfig, entropies
from compressors.signature import fingerprint
from compressors.strategies import parity_recipes
from compressors.strategies.fitted import mask_input, site_lines
from compressors.strategies.parity import ParitySearch, ParitySettings, merge_cuts, taught
from compressors.strategies.parity_easier import LowestEntropy
from compressors.strategies.rounds import Look, RoundSearch, State, round_cuts, round_settings

if TYPE_CHECKING:
    from compressors.analysis.segments import Site
    from compressors.channel_line import Line
    from compressors.problem import Problem, Search
    from compressors.strategies.options import EasierOptions, RoundOptions
    from compressors.table import Alternative

NAME = "easier"


@final
@dataclass(frozen=True)
class Entropy:
    """EASIER's idea of what matters (`compressors.strategies.rounds.SiteMethod`)."""

    problem: Problem
    options: RoundOptions

    def look(
        self,
        state: State,
        sites: Sequence[Site],
        alternatives: Sequence[Alternative],  # noqa: ARG002
        needed: float,  # noqa: ARG002
    ) -> Look:
        """Returns the entropy of every site in bits, and lines found in the way that the options say."""

        def lines(chosen: Sequence[Site]) -> Mapping[str, Line]:
            return site_lines(state.graph, chosen, self.options.way, self.problem.calibration)

        names = [site.node for site in sites]
        key = key_of(NAME, fingerprint(state.graph), names, self.options, count(self.problem.calibration))
        scores = remembered(self.problem.memory, key, names, lambda: self._entropies(state, sites))
        return Look(scores, state, lines)

    def _entropies(self, state: State, sites: Sequence[Site]) -> dict[str, float]:
        batches = (batch.inputs for batch in in_order(self.problem.calibration, 128, self.options.calibration_samples))
        config = EntropyConfig(mask=mask_input(state.graph))
        found = entropies(state.graph, batches, sites, config) if sites else {}
        return {name: entropy.layer for name, entropy in found.items()}


def begin(problem: Problem, options: EasierOptions) -> Search:
    """Starts a search among merges."""
    if options.parity:
        cuts = [cut for _, cut in merge_cuts(problem, options.span, options.max_kernel) if not cut.step.pruned]
        recipes = parity_recipes.easier(problem.graph)
        settings = ParitySettings(NAME, recipes.final, options.selection_samples, options.margin)
        return ParitySearch(
            problem, cuts, LowestEntropy(taught(problem, recipes.way), options.calibration_samples), settings
        )
    return RoundSearch(problem, round_cuts(options, problem), Entropy(problem, options), round_settings(options, NAME))
