"""The data-flow graph: which tensors every path goes through, found in one pass.

In a directed acyclic graph with its nodes in any topological order, a node lies on every path from source to sink
exactly when no edge jumps over it. (It dominates the sink and post-dominates the source.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

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
    """Returns everything that carries data from the main input to the outputs; sizes and weights are no data.

    The main input is the largest one (of equals, the one that alone decides the most operators). What another input
    alone decides belongs to the region only if it joins in one place, as a second image or a token type does; what is
    read in several places (an attention mask, a time step) is a side input: data for the tensors that read it, but not
    a way through the network.
    """
    return _ways(module, shapes)[0]


def side_data(module: fx.GraphModule, shapes: Shapes) -> AbstractSet[fx.Node]:
    """Returns what side inputs alone decide."""
    return _ways(module, shapes)[1]


_known: WeakKeyDictionary[fx.GraphModule, tuple[str, Region, frozenset[fx.Node]]] = WeakKeyDictionary()
"""Results by module, for one code of it: surgery asks for the same graph many times."""


def _ways(module: fx.GraphModule, shapes: Shapes) -> tuple[Region, frozenset[fx.Node]]:
    code, region, sides = _known.get(module, (None, None, None))
    if code != module.code or region is None or sides is None:
        region, sides = _find_ways(module, shapes)
        _known[module] = (module.code, region, sides)
    return region, sides


def _find_ways(module: fx.GraphModule, shapes: Shapes) -> tuple[Region, frozenset[fx.Node]]:
    depends = _dependence(module, shapes)
    inputs = [node for node in depends if node.op == "placeholder"]
    if not inputs:
        return Region(()), frozenset()
    main = _main_input(inputs, depends, shapes)
    joined = {main, *(node for node in inputs if len(_joins(node, main, depends)) < 2)}
    forward = {node for node, sources in depends.items() if main in sources or sources <= joined}
    backward: set[fx.Node] = set()
    for node in reversed(depends):
        if node in forward and (node.op == "output" or any(user in backward for user in node.users)):
            backward.add(node)
    return Region(tuple(node for node in depends if node in backward)), frozenset(depends.keys() - forward)


def _dependence(module: fx.GraphModule, shapes: Shapes) -> dict[fx.Node, frozenset[fx.Node]]:
    """Returns, for every node that carries data, the inputs that it depends on; in topological order."""
    depends: dict[fx.Node, frozenset[fx.Node]] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder":
            depends[node] = frozenset([node])
        elif node.name in shapes.carriers or node.op == "output":
            sources = {depends[source] for source in node.all_input_nodes if source in depends}
            if sources:
                depends[node] = frozenset().union(*sources) if len(sources) > 1 else sources.pop()
    return depends


def _main_input(inputs: Sequence[fx.Node], depends: Mapping[fx.Node, frozenset[fx.Node]], shapes: Shapes) -> fx.Node:
    """Returns the largest input; of equals, the one that alone decides the most operators, then the first."""
    alone = Counter(
        next(iter(sources)) for node, sources in depends.items() if len(sources) == 1 and node.op == "call_module"
    )
    return max(inputs, key=lambda node: (math.prod(shapes.full[node.name]), alone[node]))


def _joins(node: fx.Node, main: fx.Node, depends: Mapping[fx.Node, frozenset[fx.Node]]) -> set[fx.Node]:
    """Returns the nodes at which what depends on an input, and not on the main one, meets what does."""
    own = (found for found, sources in depends.items() if node in sources and main not in sources)
    return {user for found in own for user in found.users if main in depends.get(user, ())}


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
