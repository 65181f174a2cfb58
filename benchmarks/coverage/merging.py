"""The one place that says how the benchmark merges."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import fx

from compressors.graph import Graph
from compressors.modules import NORMS, OPERATORS
from compressors.surgery import apply, maximal_steps, merge


@dataclass(frozen=True)
class Outcome:
    """A merged graph.

    Attributes:
        graph: With everything merged that could be.
        merges: How many there were.
        reference: What it must compute: the graph before its merges, linearised where the merges needed that.
    """

    graph: Graph
    merges: int
    reference: Graph


def merge_all(graph: Graph) -> Outcome:
    """Returns the graph with as many merges as there can be: activations gone, padding first, everything merged."""
    unmerged = apply(graph, maximal_steps(graph))
    merged = merge(unmerged)
    return Outcome(merged.graph, len(merged.verifications), unmerged)


def count_layers(graph: Graph) -> int:
    """Returns how many convolutions, linears and norms a graph calls."""
    modules = dict(graph.module.named_modules())
    calls = (modules[str(node.target)] for node in graph.module.graph.nodes if node.op == "call_module")
    return sum(isinstance(module, (*OPERATORS, *NORMS)) for module in calls)


def in_float64(graph: Graph) -> Graph:
    """Returns a copy that computes in float64; casts to float32 inside become casts to float64."""
    copy = graph.copied()
    for node in copy.module.graph.nodes:
        node.args = fx.node.map_aggregate(node.args, _widened)  # type: ignore[assignment]
        node.kwargs = fx.node.map_aggregate(node.kwargs, _widened)  # type: ignore[assignment]
    copy.module.recompile()
    copy.module.double()
    inputs = tuple(replace(spec, dtype=_widened(spec.dtype)) for spec in graph.inputs)
    return replace(copy, inputs=inputs)


def _widened(value: object) -> object:
    return torch.float64 if value is torch.float32 else value
