"""Single-entry single-exit links of a data-flow graph, by dominators.

u dominates v when every path from the source to v goes through u; v post-dominates u when every path from u to the sink
goes through v. Where v is the immediate post-dominator of u and u the immediate dominator of v, everything between
them can be entered through u and left through v only: a link. Every node starts at most one link and ends at most one,
so the links form chains, and the chains nest. (Immediate dominators as in Cooper, Harvey and Kennedy, "A simple, fast
dominance algorithm", 2001; a graph without cycles needs one pass.)

A chain may begin in a join, say of a block whose input a long skip connection reads too. Then the join's immediate
dominator is an entry: nothing between the two is read elsewhere, only the entry itself is.
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
        index: Place of every node in topological order.
        inside: Node to the innermost link that it lies strictly inside; nodes on the outermost chains are absent.
        entries: First node of a chain to the tensor before it, as far as there is one.
        joins: Node to the pairs of entry and join that it lies between.
    """

    next: dict[fx.Node, fx.Node]
    dominator: dict[fx.Node, fx.Node]
    index: dict[fx.Node, int]
    inside: dict[fx.Node, tuple[fx.Node, fx.Node]]
    entries: dict[fx.Node, fx.Node]
    joins: dict[fx.Node, list[tuple[fx.Node, fx.Node]]]

    def chains(self) -> list[tuple[fx.Node, ...]]:
        """Returns the maximal runs of links, by first node; nodes without any link are runs of their own."""
        return [self._run(node) for node in _heads(self.index, self.next)]

    def _run(self, first: fx.Node) -> tuple[fx.Node, ...]:
        run = [first]
        while run[-1] in self.next:
            run.append(self.next[run[-1]])
        return tuple(run)

    def around(self, node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
        """Returns the innermost link, or entry and join, that `node` lies strictly inside; None for the outermost."""
        found = list(self.joins.get(node, ()))
        if node in self.inside:
            found.append(self.inside[node])
        return max(found, key=lambda pair: (self.index[pair[0]], -self.index[pair[1]]), default=None)


def find_links(region: Region) -> Links:
    """Returns the links among a region's nodes, which are in topological order."""
    nodes, index = region.nodes, region.index
    before = {node: [source for source in node.all_input_nodes if source in index] for node in nodes}
    after = {node: [user for user in node.users if user in index] for node in nodes}
    dominator = _immediate(nodes, before)
    post = _immediate(tuple(reversed(nodes)), after)
    links = {node: end for node, end in post.items() if dominator.get(end) is node}
    entries: dict[fx.Node, fx.Node] = {}
    joins: dict[fx.Node, list[tuple[fx.Node, fx.Node]]] = {}
    for head in _heads(index, links):
        between = _between(head, dominator.get(head), before, after)
        if between is not None:
            entry = entries[head] = dominator[head]
            for node in between:
                joins.setdefault(node, []).append((entry, head))
    return Links(links, dominator, index, _inside(nodes, links, dominator, index), entries, joins)


def _inside(
    nodes: Iterable[fx.Node],
    links: dict[fx.Node, fx.Node],
    dominator: dict[fx.Node, fx.Node],
    index: dict[fx.Node, int],
) -> dict[fx.Node, tuple[fx.Node, fx.Node]]:
    """Returns the innermost link around each node.

    It starts at the node's dominator if that one's link ends behind the node; otherwise both lie inside the same link.
    """
    found: dict[fx.Node, tuple[fx.Node, fx.Node]] = {}
    for node in nodes:
        start = dominator.get(node)
        end = None if start is None else links.get(start)
        if start is not None and end is not None and index[end] > index[node]:
            found[node] = (start, end)
        elif start in found:
            found[node] = found[start]
    return found


def _heads(nodes: Iterable[fx.Node], links: dict[fx.Node, fx.Node]) -> list[fx.Node]:
    ends = set(links.values())
    return [node for node in nodes if node not in ends]


def _between(
    join: fx.Node, entry: fx.Node | None, before: dict[fx.Node, list[fx.Node]], after: dict[fx.Node, list[fx.Node]]
) -> set[fx.Node] | None:
    """Returns the nodes strictly between an entry and a join, None where one of them is read elsewhere."""
    if entry is None:
        return None
    found: set[fx.Node] = set()
    pending = [join]
    while pending:
        node = pending.pop()
        for source in before[node]:
            if source is entry or source in found:
                continue
            found.add(source)
            pending.append(source)
    inside = found | {join}
    return found if all(user in inside for node in found for user in after[node]) else None


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
