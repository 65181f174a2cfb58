"""`layerfit`: cut what matters least, put a fitted operator, a merged one or nothing in its place, refit what follows.

The search itself is `fitted`; this file says what may be cut.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from compressors.analysis.merges import Options as MergeLimits
from compressors.analysis.regions import Reach, merge_space
from compressors.strategies.fitted import FittedSearch, Settings
from compressors.strategies.norm_back import with_norms
from compressors.table import Cut, region_cuts, segment_cuts

if TYPE_CHECKING:
    from compressors.problem import Problem
    from compressors.strategies.options import LayerfitOptions

NAME = "layerfit"


def begin(problem: Problem, options: LayerfitOptions) -> FittedSearch:
    """Starts a search among removals, regressions and merges."""
    cuts = [cut for segment in problem.analysis.segments for cut in segment_cuts(segment) if _allowed(cut, options)]
    if options.merge:
        reach = Reach(options=MergeLimits(kernel=options.max_kernel))
        regions = merge_space(problem.graph, reach).regions
        cuts += [cut for region in regions for cut in with_norms(region, region_cuts(region, options.way))]
    return FittedSearch(problem, cuts, _settings(options))


def _allowed(cut: Cut, options: LayerfitOptions) -> bool:
    step = cut.step
    if step.kind == "remove":
        return options.remove
    unknowns = cut.input_shape[0] * math.prod(step.kernel) if step.kernel else cut.input_shape[-1]
    return options.regress and max(step.kernel, default=1) <= options.max_kernel and unknowns <= options.max_unknowns


def _settings(options: LayerfitOptions) -> Settings:
    return Settings(
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
