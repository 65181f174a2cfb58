"""`layer_collapse`: the two linears of an MLP become one where training can do without the activation between them.

Source: Shabgahi, Shariff, Koushanfar, "LayerCollapse: Adaptive compression of neural networks", 2023. What is
different by default: the gate mixes the activation that is there instead of putting a PReLU in its place, leads to the
line that fits best, and is pulled as hard as the device would gain; which MLPs go is chosen by gates and device, not
from the end; an MLP whose collapse would not be faster stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressors.gates import GateRecipe
from compressors.scores.size import shrinks
from compressors.strategies import parity_recipes
from compressors.strategies.gated import Gates
from compressors.strategies.parity import ParitySearch, ParitySettings, merge_cuts, taught
from compressors.strategies.parity_gates import Collapse
from compressors.strategies.rounds import RoundSearch, round_cuts, round_settings

if TYPE_CHECKING:
    from compressors.problem import Problem, Search
    from compressors.strategies.options import LayerCollapseOptions

NAME = "layer_collapse"


def begin(problem: Problem, options: LayerCollapseOptions) -> Search:
    """Starts a search among merges of linears."""
    if options.parity:
        return _parity(problem, options)
    cuts = [cut for cut in round_cuts(options, problem) if options.convolutions or not cut.step.kernel]
    method = Gates(problem, options, GateRecipe("collapse", options.penalty))
    return RoundSearch(problem, cuts, method, round_settings(options, NAME))


def _parity(problem: Problem, options: LayerCollapseOptions) -> ParitySearch:
    """Starts a search among pairs of linears with one activation between them that would become smaller."""
    cuts = [
        cut
        for region, cut in merge_cuts(problem, options.span, options.max_kernel)
        if not cut.step.kernel and not cut.step.pruned and len(cut.step.sites) == 1 and len(region.operators) == 2
        if shrinks(problem.graph, region, region.options[0])
    ]
    pairs = frozenset(cut.step.sites[0] for cut in cuts)
    recipes = parity_recipes.layer_collapse(problem.graph)
    settings = ParitySettings(NAME, recipes.final, options.selection_samples, options.margin)
    return ParitySearch(problem, cuts, Collapse(taught(problem, recipes.way), options.penalty, pairs), settings)
