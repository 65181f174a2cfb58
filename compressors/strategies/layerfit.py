"""`layerfit`: cut what matters least, put a fitted operator, a merged one or nothing in its place, refit what follows.

The search itself is `fitted`; this file says what may be cut.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from compressors.analysis.merges import Options as MergeLimits
from compressors.analysis.regions import Reach, merge_space
from compressors.plan import Way
from compressors.strategies.fitted import FittedSearch, Settings
from compressors.strategies.options import Options
from compressors.table import Cut, region_cuts, segment_cuts

if TYPE_CHECKING:
    from compressors.problem import Problem

NAME = "layerfit"
SUMMARY = (
    "Replaces stretches by one operator fitted in closed form, or by nothing, where the measured latency gains most "
    "and the network's decisions change least; refits what follows. Needs no labels."
)


class LayerfitOptions(Options):
    """Options of `layerfit`."""

    refit: Literal["none", "last", "all"] = "all"
    """What is refitted behind the cuts: nothing, the last operator of each block, or every operator."""
    regress: bool = True
    """Whether stretches may be replaced by one fitted operator."""
    remove: bool = True
    """Whether stretches may be removed without replacement."""
    merge: bool = True
    """Whether activations may be turned into lines, so that what they stood between becomes one operator."""
    way: Way = "fitted"
    """Which lines: the identity, the best for what the weights let expect, or the best for calibration samples."""
    max_kernel: int = Field(default=5, ge=1, le=15)
    """Largest kernel of a fitted convolution."""
    max_unknowns: int = Field(default=5000, ge=1, le=50_000)
    """Operators with more weights per output are not fitted: memory grows with the square, time with the cube."""
    calibration_samples: int = Field(default=2048, ge=1)
    """At most this many unlabelled samples for the final fits."""
    selection_samples: int = Field(default=1024, ge=1)
    """At most this many held-back samples for the choices."""
    plans: int = Field(default=4, ge=1, le=32)
    """How many plans are fitted in full and compared."""
    refinements: int = Field(default=32, ge=0, le=512)
    """At most this many cuts are judged again with refitting, for each budget that is tried."""
    margin: float = Field(default=0.02, ge=0, lt=1)
    """Share of the budget that is kept free, so that noise does not break it."""


def begin(problem: Problem, options: LayerfitOptions) -> FittedSearch:
    """Starts a search among removals, regressions and merges."""
    cuts = [cut for segment in problem.analysis.segments for cut in segment_cuts(segment) if _allowed(cut, options)]
    if options.merge:
        reach = Reach(options=MergeLimits(kernel=options.max_kernel))
        regions = merge_space(problem.graph, reach).regions
        cuts += [cut for region in regions for cut in region_cuts(region, options.way)]
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
        options.margin,
    )
