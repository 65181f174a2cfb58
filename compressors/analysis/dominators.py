"""Single-entry single-exit links of a data-flow graph, by dominators.

u dominates v when every path from the source to v goes through u; v post-dominates u when every path from u to the sink
goes through v. Where v is the immediate post-dominator of u and u the immediate dominator of v, everything between
them can be entered through u and left through v only: a link. Every node starts at most one link and ends at most one,
so the links form chains, and the chains nest. (Immediate dominators as in Cooper, Harvey and Kennedy, "A simple, fast
dominance algorithm", 2001; a graph without cycles needs one pass.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import fx

from compressors.analysis.flow import Region


@dataclass(frozen=True)
class Links:
    """The links of one region.

    Attributes:
        next: Node to the end of the link that it starts.
        dominator: Node to its immediate dominator; nodes that only the source of the whole region dominates are absent.
    """

    next: dict[fx.Node, fx.Node]
    dominator: dict[fx.Node, fx.Node]

    def chains(self, nodes: Sequence[fx.Node]) -> list[tuple[fx.Node, ...]]:
        """Returns the maximal runs of links, by first node; nodes without any link are runs of their own."""
        ends = set(self.next.values())
        runs = []
        for node in nodes:
            if node in ends:
                continue
            run = [node]
            while run[-1] in self.next:
                run.append(self.next[run[-1]])
            runs.append(tuple(run))
        return runs

    def around(self, node: fx.Node, index: dict[fx.Node, int]) -> tuple[fx.Node, fx.Node] | None:
        """Returns the innermost link that `node` lies strictly inside, None for the outermost level."""
        start = self.dominator.get(node)
        while start is not None:
            end = self.next.get(start)
            if end is not None and index[end] > index[node]:
                return start, end
            start = self.dominator.get(start)
        return None


def find_links(region: Region) -> Links:
    """Returns the links among a region's nodes, which are in topological order."""
    nodes, index = region.nodes, region.index
    before = {node: [source for source in node.all_input_nodes if source in index] for node in nodes}
    after = {node: [user for user in node.users if user in index] for node in nodes}
    dominator = _immediate(nodes, before)
    post = _immediate(tuple(reversed(nodes)), after)
    links = {node: end for node, end in post.items() if dominator.get(end) is node}
    return Links(links, dominator)


def _immediate(nodes: Sequence[fx.Node], before: dict[fx.Node, list[fx.Node]]) -> dict[fx.Node, fx.Node]:
    """Returns immediate dominators; `before` holds every node's predecessors, all of them earlier in `nodes`."""
    order = {node: position for position, node in enumerate(nodes)}
    found: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        shared = _meet(before[node], found, order)
        if shared is not None:
            found[node] = shared
    return found


def _meet(sources: Iterable[fx.Node], dominator: dict[fx.Node, fx.Node], order: dict[fx.Node, int]) -> fx.Node | None:
    """Returns the closest node that dominates all sources, None where only the virtual source of everything does."""
    shared: fx.Node | None = None
    for position, source in enumerate(sources):
        if not position:
            shared = source
            continue
        other: fx.Node | None = source
        while shared is not other:
            if shared is None or other is None:
                return None
            if order[shared] > order[other]:
                shared = dominator.get(shared)
            else:
                other = dominator.get(other)
    return shared
