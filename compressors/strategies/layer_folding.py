"""`layer_folding`: activations that training can turn into lines go, and convolutions around them fold.

Source: Ben Dror et al., "Layer Folding: Neural Network Depth Reduction using Activation Linearization", BMVC 2022. What
is different by default: a gate leads to the line that fits best instead of the identity, starts above zero, stays in
[0, 1] and is pulled as hard as the device would gain from its fold; whole residual blocks fold, their additions
included; padding moves to the front before the network is fine-tuned, so that what is trained is what ships.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressors.gates import GateRecipe
from compressors.strategies import parity_recipes
from compressors.strategies.gated import Gates
from compressors.strategies.parity import ParitySearch, ParitySettings, merge_cuts, taught
from compressors.strategies.parity_gates import Folding
from compressors.strategies.rounds import RoundSearch, round_cuts, round_settings

if TYPE_CHECKING:
    from compressors.problem import Problem, Search
    from compressors.strategies.options import LayerFoldingOptions

NAME = "layer_folding"


def begin(problem: Problem, options: LayerFoldingOptions) -> Search:
    """Starts a search among merges."""
    if options.parity:
        cuts = [cut for _, cut in merge_cuts(problem, options.span, options.max_kernel) if not cut.step.pruned]
        recipes = parity_recipes.layer_folding(problem.graph)
        settings = ParitySettings(NAME, recipes.final, options.selection_samples, options.margin)
        return ParitySearch(problem, cuts, Folding(taught(problem, recipes.way), options.penalty), settings)
    method = Gates(problem, options, GateRecipe("folding", options.penalty))
    return RoundSearch(problem, round_cuts(options, problem), method, round_settings(options, NAME))
