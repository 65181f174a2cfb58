"""Activation sites."""

from __future__ import annotations

from torch import fx

from compressors.analysis.kinds import module_of
from compressors.analysis.segments import Site
from compressors.modules import activation_kind
from compressors.shapes import Shapes


def find_sites(module: fx.GraphModule, shapes: Shapes) -> tuple[Site, ...]:
    """Returns every activation call, in the order in which they run."""
    sites = []
    for node in module.graph.nodes:
        kind = activation_kind(module_of(node)) if node.op == "call_module" else None
        if kind is not None:
            shape = shapes.per_sample(node.name) or shapes.full[node.name]
            sites.append(Site(node.name, kind, str(node.target), shape))
    return tuple(sites)
