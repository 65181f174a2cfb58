"""`layer_merge`: which operators go and which activations turn into lines, so that the rest merges within the budget.

Source: Kim et al., "LayerMerge: Neural Network Depth Compression through Layer Pruning and Merging", ICML 2024. What is
different by default: importance is the divergence that a merge causes after the closed-form repair, found out where
the best plans need it, instead of one short training for every entry; activations become fitted lines; times are
rounded up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from compressors.analysis.merges import Options as MergeLimits
from compressors.analysis.regions import Reach, merge_space
from compressors.plan import Way
from compressors.strategies.fitted import FittedSearch, Settings
from compressors.strategies.options import Options, refuse_with_parity
from compressors.strategies.parity import ParitySettings, merge_cuts
from compressors.strategies.parity_layer_merge import EntrySearch
from compressors.table import region_cuts

if TYPE_CHECKING:
    from compressors.problem import Problem, Search

NAME = "layer_merge"
SUMMARY = (
    "Takes out whole convolutions and turns activations into lines, so that what is left merges into fewer operators; "
    "a dynamic programme over measured latencies picks the combination (LayerMerge, 2024)."
)


class LayerMergeOptions(Options):
    """Options of `layer_merge`."""

    prune: bool = True
    """Whether convolutions that change neither channels nor size may go."""
    way: Way = "fitted"
    """Which lines take the place of activations."""
    refit: Literal["none", "last", "all"] = "all"
    """What is refitted behind the merges: nothing, the last operator of each block, or every operator."""
    max_kernel: int = Field(default=7, ge=1, le=31)
    """Largest kernel of a merged convolution."""
    span: int = Field(default=8, ge=1, le=64)
    """Most positions of a chain that one merge covers."""
    calibration_samples: int = Field(default=2048, ge=1)
    """At most this many unlabelled samples for the final fits."""
    selection_samples: int = Field(default=1024, ge=1)
    """At most this many held-back samples for the choices."""
    plans: int = Field(default=4, ge=1, le=32)
    """How many plans are fitted in full and compared."""
    refinements: int = Field(default=32, ge=0, le=512)
    """At most this many merges are judged again with refitting, for each budget that is tried."""
    margin: float = Field(default=0.02, ge=0, lt=1)
    """Share of the budget that is kept free, so that noise does not break it."""
    parity: bool = False
    """Whether to do as the paper does: a short training for every merge, and times cut downwards."""

    @model_validator(mode="after")
    def _without_contradiction(self) -> Self:
        return refuse_with_parity(
            self, {"prune", "way", "refit", "calibration_samples", "plans", "refinements"}, parity=self.parity
        )


def begin(problem: Problem, options: LayerMergeOptions) -> Search:
    """Starts a search among merges."""
    if options.parity:
        entries = merge_cuts(problem, options.span, options.max_kernel)
        return EntrySearch(problem, entries, ParitySettings(NAME, options.selection_samples, options.margin))
    reach = Reach(span=options.span, options=MergeLimits(kernel=options.max_kernel))
    regions = merge_space(problem.graph, reach).regions
    cuts = [
        cut for region in regions for cut in region_cuts(region, options.way) if options.prune or not cut.step.pruned
    ]
    settings = Settings(
        NAME,
        options.refit,
        options.way,
        options.calibration_samples,
        options.selection_samples,
        options.plans,
        options.refinements,
        options.margin,
    )
    return FittedSearch(problem, cuts, settings)
