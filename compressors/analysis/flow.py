"""The data-flow graph: which tensors every path goes through, found in one pass.

In a directed acyclic graph with its nodes in any topological order, a node lies on every path from source to sink
exactly when no edge jumps over it. (It dominates the sink and post-dominates the source.)
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import fx

from compressors.shapes import Shapes


@dataclass(frozen=True)
class Region:
    """Nodes on some path from a source to a sink, in topological order; both ends included."""

    nodes: tuple[fx.Node, ...]

    @cached_property
    def index(self) -> dict[fx.Node, int]:
        """Where each node stands in the order."""
        return {node: position for position, node in enumerate(self.nodes)}

    def cuts(self) -> list[fx.Node]:
        """Returns the nodes that every path goes through, in order."""
        index = self.index
        reach = max((i for i, node in enumerate(self.nodes) if node.op == "placeholder"), default=0)
        found = []
        for position, node in enumerate(self.nodes):
            if reach <= position:
                found.append(node)
            reach = max([reach, *(index[user] for user in node.users if user in index)])
        return found

    def between(self, start: fx.Node, end: fx.Node) -> Region:
        """Returns the part from one of its cuts to a later node, both included."""
        index = self.index
        found = {start, end}
        pending = [end]
        while pending:
            for source in pending.pop().all_input_nodes:
                if source in index and source not in found:
                    found.add(source)
                    pending.append(source)
        return Region(tuple(sorted(found, key=index.__getitem__)))


def main_region(module: fx.GraphModule, shapes: Shapes) -> Region:
    """Returns everything that carries data from the inputs to the outputs; sizes and weights are no data."""
    nodes = list(module.graph.nodes)
    forward = {node for node in nodes if node.op == "placeholder"}
    for node in nodes:
        carries = node.name in shapes.carriers or node.op == "output"
        if carries and any(source in forward for source in node.all_input_nodes):
            forward.add(node)
    backward: set[fx.Node] = set()
    for node in reversed(nodes):
        if node in forward and (node.op == "output" or any(user in backward for user in node.users)):
            backward.add(node)
    return Region(tuple(node for node in nodes if node in backward))


def side_nodes(inside: Sequence[fx.Node], data: Container[fx.Node]) -> set[fx.Node]:
    """Returns weights and sizes that only the given nodes read; `data` holds the nodes that carry data."""
    known = set(inside)
    pending = [source for node in inside for source in node.all_input_nodes]
    while pending:
        node = pending.pop()
        if node in known or node in data or any(user not in known for user in node.users):
            continue
        known.add(node)
        pending.extend(node.all_input_nodes)
    return known - set(inside)
