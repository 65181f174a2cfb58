"""Whether a merge makes a network smaller: the rules of LayerCollapse and Layer Folding, for any merge region.

1. LayerCollapse, two linears i -> h -> o: one has fewer parameters iff h (i + o + 1) > i o. A bottleneck, whose h is
   smaller than that, would grow; its activation may still go, the pair stays.
2. Layer Folding, an inverted residual of expansion t: one dense k x k convolution needs fewer multiply-adds iff
   k^2 c o < t c (c + k^2 + o). Without expansion (t = 1) and without the first operator it grows.
3. In general: what the region's operators have and do against what the one operator has and does.

Every operator counts as it ships: with a bias where it has one or a norm that is folded into it. Fewer multiply-adds do
not mean a lower latency: where there is a latency table, that decides.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import fx

from compressors.algebra.cost import Comparison, Cost
from compressors.analysis.kinds import module_of
from compressors.analysis.merges import MergeOption, MergeRegion
from compressors.collapse.axes import channel_axes
from compressors.graph import Graph
from compressors.modules import NORMS, OPERATORS
from compressors.shapes import propagate

Measure = Literal["parameters", "multiply_adds"]


def linear_pair_shrinks(inputs: int, hidden: int, outputs: int) -> bool:
    """Returns whether one linear has fewer parameters than two with biases (case 1)."""
    return hidden * (inputs + outputs + 1) > inputs * outputs


def inverted_residual_shrinks(kernel: int, inputs: int, outputs: int, expansion: int) -> bool:
    """Returns whether one dense convolution does fewer multiply-adds than an inverted residual (case 2).

    Args:
        kernel: Of the depthwise convolution, square.
        inputs: Channels in.
        outputs: Channels out.
        expansion: t; the expanding convolution is there even for 1.
    """
    return kernel**2 * inputs * outputs < expansion * inputs * (inputs + kernel**2 + outputs)


def merge_comparison(graph: Graph, region: MergeRegion, option: MergeOption) -> Comparison:
    """Returns what a region costs as it is, and as the one operator of an option (case 3).

    Args:
        graph: Where the region is.
        region: From `compressors.analysis.merge_space`.
        option: One of the region's.
    """
    nodes = {node.name: node for node in graph.module.graph.nodes}
    parameters = sum(_parameters(nodes[name]) for name in region.operators)
    outputs = _outputs(graph, nodes, region)
    positions = math.prod(propagate(graph.module, graph.inputs).full[region.exit][1:]) // outputs
    merged = Cost(option.macs // positions + outputs, option.macs)
    return Comparison(Cost(parameters, region.macs), merged)


def shrinks(graph: Graph, region: MergeRegion, option: MergeOption, measure: Measure = "parameters") -> bool:
    """Returns whether an option has fewer parameters, or does fewer multiply-adds, than the region as it is."""
    compared = merge_comparison(graph, region, option)
    return compared.fewer_parameters if measure == "parameters" else compared.fewer_multiply_adds


def smallest_option(graph: Graph, region: MergeRegion, measure: Measure = "parameters") -> MergeOption | None:
    """Returns the option that keeps every operator's effect and shrinks the region most; None where none shrinks it.

    Options that prune operators are left out: they are no collapse of what is there.
    """
    found = [option for option in region.options if not option.pruned and shrinks(graph, region, option, measure)]
    return min(found, key=lambda option: getattr(merge_comparison(graph, region, option).merged, measure), default=None)


def _parameters(node: fx.Node) -> int:
    """Returns an operator's weights and biases as it ships."""
    module = module_of(node)
    assert isinstance(module, OPERATORS)
    biased = module.bias is not None or any(
        user.op == "call_module" and isinstance(module_of(user), NORMS) for user in node.users
    )
    return module.weight.numel() + (len(module.weight) if biased else 0)


def _outputs(graph: Graph, nodes: dict[str, fx.Node], region: MergeRegion) -> int:
    """Returns the channels of a region's output; where nothing tells the dimension, those of its last operator."""
    axis = channel_axes(graph).get(region.exit)
    if axis is not None:
        return propagate(graph.module, graph.inputs).full[region.exit][axis]
    weight = module_of(nodes[region.operators[-1]]).weight
    return len(weight)  # type: ignore[arg-type]  # an operator's weight is a tensor
