"""Activation sites, and norms that become lines where activations do."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx

from compressors.analysis.kinds import module_of
from compressors.analysis.segments import Site
from compressors.graph import Graph
from compressors.modules import BATCH_NORMS, NORMS, activation_kind
from compressors.shapes import Shapes, propagate


def find_sites(module: fx.GraphModule, shapes: Shapes) -> tuple[Site, ...]:
    """Returns every activation call, in the order in which they run."""
    sites = []
    for node in module.graph.nodes:
        kind = activation_kind(module_of(node)) if node.op == "call_module" else None
        if kind is not None:
            shape = shapes.per_sample(node.name) or shapes.full[node.name]
            sites.append(Site(node.name, kind, str(node.target), shape))
    return tuple(sites)


def norm_sites(graph: Graph, wanted: Collection[str]) -> tuple[Site, ...]:
    """Returns those of some nodes that call norms that look at the sample: a line of theirs can be fitted like any."""
    shapes = propagate(graph.module, graph.inputs)
    sites = []
    for node in graph.module.graph.nodes:
        if node.name in wanted and node.op == "call_module":
            module = module_of(node)
            if isinstance(module, NORMS) and not isinstance(module, BATCH_NORMS):
                shape = shapes.per_sample(node.name) or shapes.full[node.name]
                sites.append(Site(node.name, "norm", str(node.target), shape))
    return tuple(sites)
