"""Fitted operators beside merges: where a merge is larger than it need be, or worse than it could be.

1. Kernels grow as operators merge, 3x3 behind 3x3 is 5x5, which on many devices is slower than the two. Once its
   activations are lines a stretch is linear, and one operator with a smaller kernel can be fitted to it.
2. What is left of a stretch after operators were pruned is one operator of a certain shape, made of weights that were
   trained for another function. The least-squares operator of the same shape is as fast and fits better.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Final

from compressors.analysis.kinds import module_of
from compressors.analysis.sites import norm_sites
from compressors.table import Cut, segment_cuts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.analysis.segments import Segment
    from compressors.problem import Problem

MOST_UNKNOWNS: Final = 5000
"""Operators with more weights per output are not fitted: memory grows with the square, time with the cube."""

Place = tuple[str, int, int]


def narrow_cuts(problem: Problem, merges: Sequence[Cut], max_kernel: int) -> list[Cut]:
    """Returns the regressions of stretches with activations whose kernels are smaller than any merge's (case 1).

    Args:
        problem: What is to be made faster.
        merges: Of it; none of them pruned.
        max_kernel: Largest kernel to offer.
    """
    modules = {node.name: module_of(node) for node in problem.graph.module.graph.nodes if node.op == "call_module"}
    norms = {norm.node for norm in norm_sites(problem.graph, modules)}
    kernels = defaultdict[Place, list[tuple[int, ...]]](list)
    for merge in merges:
        kernels[_place(merge)].append(merge.step.kernel)
    found = []
    for segment in problem.analysis.segments:
        if not segment.sites or segment.approximates:
            continue
        dissolved = tuple(name for name in segment.nodes if name in norms)
        for cut in _fitted(segment):
            kernel = cut.step.kernel
            if max(kernel) <= max_kernel and not any(_within(other, kernel) for other in kernels[_place(cut)]):
                found.append(replace(cut, sites=(*cut.sites, *dissolved)))
    return found


def pruned_cuts(problem: Problem, merges: Sequence[Cut]) -> list[Cut]:
    """Returns the regression of the same shape beside every merge that prunes operators (case 2).

    Args:
        problem: What is to be made faster.
        merges: Of it.
    """
    shapes = {(_place(merge), merge.step.kernel) for merge in merges if merge.step.pruned}
    fitted = [cut for segment in problem.analysis.segments for cut in _fitted(segment)]
    return [cut for cut in fitted if (_place(cut), cut.step.kernel) in shapes]


def _fitted(segment: Segment) -> list[Cut]:
    """Returns the convolutions that may be fitted to a segment, by growing kernel."""
    cuts = [cut for cut in segment_cuts(segment) if cut.step.kernel]
    return [cut for cut in cuts if cut.input_shape[0] * prod(cut.step.kernel) <= MOST_UNKNOWNS]


def _place(cut: Cut) -> Place:
    return cut.chain, cut.start, cut.end


def _within(kernel: Sequence[int], other: Sequence[int]) -> bool:
    return len(kernel) == len(other) and all(size <= most for size, most in zip(kernel, other, strict=True))
