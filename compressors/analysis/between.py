"""What lies between two tensors of a graph, whether or not that is a segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressors.modules import OPERATORS

if TYPE_CHECKING:
    from torch import fx

    from compressors.analysis.segments import Analysis
    from compressors.graph import Graph


@dataclass(frozen=True)
class Between:
    """What lies on the ways from one tensor to another.

    Attributes:
        sites: Activation nodes.
        operators: Convolution and linear nodes.
    """

    sites: tuple[str, ...]
    operators: tuple[str, ...]


def between(graph: Graph, analysis: Analysis, entry: str, end: str) -> Between:
    """Returns what lies behind the node `entry`, up to and with the node `end`; nothing where no way leads there."""
    inside = {node.name: node for node in _nodes(graph, entry, end)}
    called = ((name, node) for name, node in inside.items() if node.op == "call_module")
    return Between(
        sites=tuple(site.node for site in analysis.sites if site.node in inside),
        operators=tuple(n for n, node in called if isinstance(graph.module.get_submodule(str(node.target)), OPERATORS)),
    )


def _nodes(graph: Graph, entry: str, end: str) -> list[fx.Node]:
    """Returns the nodes on any way from `entry`, which is left out, to `end`, which is not, in topological order."""
    nodes = list(graph.module.graph.nodes)
    behind: set[fx.Node] = set()
    for node in nodes:
        if node.name == entry or any(source in behind for source in node.all_input_nodes):
            behind.add(node)
    before: set[fx.Node] = set()
    for node in reversed(nodes):
        if node.name == end or any(user in before for user in node.users):
            before.add(node)
    return [node for node in nodes if node in behind and node in before and node.name != entry]
