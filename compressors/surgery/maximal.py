"""Which merges to do where nobody asks for a latency: all that cost nothing, or as many as there can be.

1. Free merges change no function and no size of the output: parallel branches and chains of operators without anything
   between them, whose one operator needs no more multiply-accumulates than they did (RepVGG, 2021, does this by hand).
2. The maximal merge turns every activation that it can into nothing and merges what lies between: how deep a network's
   cuts could go. It is for showing what the engine can do, not for shipping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from compressors.analysis.geometry import Padding
from compressors.analysis.merges import MergeOption, MergeRegion
from compressors.analysis.regions import Reach, merge_space
from compressors.graph import Graph
from compressors.plan import Step, Way
from compressors.surgery.apply import apply
from compressors.surgery.merge import merge


def merge_step(region: MergeRegion, option: MergeOption, way: Way = "identity") -> Step:
    """Returns the step that merges a region by one of its options, activations replaced in the given way."""
    return Step(
        "merge",
        region.entry,
        region.exit,
        option.kernel,
        option.stride,
        sites=(*region.sites, *region.norms),
        pruned=option.pruned,
        way=way,
        padding="first" if option.padding is Padding.FIRST else "keep",
    )


def free_steps(graph: Graph) -> tuple[Step, ...]:
    """Returns the merges that change nothing but the time (case 1), none overlapping."""
    regions = merge_space(graph, Reach(activations=False)).regions
    found = [(region, option) for region in regions for option in region.options if _free(region, option)]
    return _disjoint(found, lambda region, option: region.macs - option.macs)


def _free(region: MergeRegion, option: MergeOption) -> bool:
    exact = option.padding is not Padding.FIRST and not option.pruned
    return exact and len(region.operators) > 1 and option.macs <= region.macs


def maximal_steps(graph: Graph, reach: Reach | None = None) -> tuple[Step, ...]:
    """Returns as many merges as there can be (case 2), longest first, none overlapping."""
    regions = (region for region in merge_space(graph, reach).regions if not region.changes_nothing)
    found = [(region, min(region.options, key=lambda option: len(option.pruned))) for region in regions]
    return _disjoint(found, lambda region, option: len(region.operators) + len(region.sites) - len(option.pruned))


def _disjoint(
    found: Iterable[tuple[MergeRegion, MergeOption]], gain: Callable[[MergeRegion, MergeOption], int]
) -> tuple[Step, ...]:
    """Returns the steps of the regions with the most gain, none overlapping, in the order that they were found in."""
    ranked = sorted(enumerate(found), key=lambda item: -gain(*item[1]))
    taken: set[str] = set()
    chosen = []
    for place, (region, option) in ranked:
        if taken.isdisjoint(region.nodes):
            taken.update(region.nodes)
            chosen.append((place, merge_step(region, option)))
    return tuple(step for _, step in sorted(chosen, key=lambda pair: pair[0]))


def reparameterise(graph: Graph) -> Graph:
    """Returns the graph with every free merge done; the same function, up to rounding.

    Raises:
        SurgeryError: A merge is off by more than 1e-10 (relative, float64); our fault.
    """
    steps = free_steps(graph)
    return replace(merge(apply(graph, steps)).graph, name=graph.name) if steps else graph
