"""`layer_merge`: which operators go and which activations turn into lines, so that the rest merges within the budget.

Source: Kim et al., "LayerMerge: Neural Network Depth Compression through Layer Pruning and Merging", ICML 2024. What is
different by default: importance is the divergence that a merge causes after the closed-form repair, found out where
the best plans need it, instead of one short training for every entry; activations become fitted lines; what is left
of a stretch after pruning is fitted to it; times are rounded up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressors.analysis.merges import Options as MergeLimits
from compressors.analysis.regions import Reach, merge_space
from compressors.strategies import parity_recipes
from compressors.strategies.fitted import FittedSearch, Settings
from compressors.strategies.norm_back import as_published, with_norms
from compressors.strategies.parity import ParitySettings, merge_cuts, taught
from compressors.strategies.parity_layer_merge import EntrySearch
from compressors.strategies.regressed import pruned_cuts
from compressors.table import region_cuts

if TYPE_CHECKING:
    from compressors.problem import Problem, Search
    from compressors.strategies.options import LayerMergeOptions

NAME = "layer_merge"


def begin(problem: Problem, options: LayerMergeOptions) -> Search:
    """Starts a search among merges."""
    if options.parity:
        merges = merge_cuts(problem, options.span, options.max_kernel)
        entries = [(region, one) for region, cut in merges for one in as_published(region, [cut])]
        recipes = parity_recipes.layer_merge(problem.graph)
        published = ParitySettings(NAME, recipes.final, options.selection_samples, options.margin)
        return EntrySearch(taught(problem, recipes.way), entries, published)
    reach = Reach(span=options.span, options=MergeLimits(kernel=options.max_kernel))
    regions = merge_space(problem.graph, reach).regions
    cuts = [
        cut
        for region in regions
        for cut in with_norms(region, region_cuts(region, options.way))
        if options.prune or not cut.step.pruned
    ]
    if options.regress:
        cuts += pruned_cuts(problem, cuts)
    settings = Settings(
        NAME,
        options.refit,
        options.way,
        options.calibration_samples,
        options.selection_samples,
        options.plans,
        options.refinements,
        options.comparisons,
        options.margin,
    )
    return FittedSearch(problem, cuts, settings)
