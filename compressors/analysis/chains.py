"""Chains of positions: the network's main chain, and one inside every branch of every parallel region."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

from torch import fx

from compressors.analysis.dominators import Links, find_links
from compressors.analysis.flow import Region
from compressors.analysis.kinds import Kind, kind_of, module_of
from compressors.analysis.names import common_path
from compressors.analysis.segments import Chain, Position
from compressors.modules import BATCH_NORMS
from compressors.shapes import Shapes

_LAYOUT = {Kind.PERMUTE, Kind.RESHAPE, Kind.SLICE, Kind.PAD, Kind.SPLIT, Kind.OTHER, Kind.ELEMENTWISE, Kind.ATTENTION}
_POOLED = {Kind.NORM, Kind.AVERAGE_POOL, Kind.GLOBAL_POOL, Kind.MEAN, Kind.MAX_POOL}


@dataclass(frozen=True)
class ChainRegion:
    """A chain with the nodes that it runs through.

    Attributes:
        chain: The positions.
        region: Everything between its first and its last position.
        join: The node that this branch and its siblings meet in; None for the main chain.
    """

    chain: Chain
    region: Region
    join: fx.Node | None

    @cached_property
    def places(self) -> tuple[list[int], list[int]]:
        """Where in the region the outputs and the targets of the positions stand; both ascend."""
        index = {node.name: place for node, place in self.region.index.items()}
        positions = self.chain.positions
        return [index[p.output] for p in positions], [index[p.target] for p in positions]


def find_chains(region: Region, shapes: Shapes) -> list[ChainRegion]:
    """Returns the main chain (it ends at the outputs) first, then the others, each before those inside it.

    A chain's first position is the tensor before its first node, where there is a single one: other branches may read
    it too.
    """
    links = find_links(region)
    finder = _Finder(region, shapes, links)
    runs = links.chains()
    for run in sorted(runs, key=lambda run: (finder.depth(run[0]), run[-1].op != "output", region.index[run[0]])):
        finder.follow(run)
    return finder.found


@final
class _Finder:
    """Turns runs of links into chains of positions, outermost first."""

    def __init__(self, region: Region, shapes: Shapes, links: Links) -> None:
        self.region = region
        self.shapes = shapes
        self.links = links
        self.found: list[ChainRegion] = []
        self.names: set[str] = set()
        self.chain_of: dict[fx.Node, ChainRegion] = {}
        self.depths: dict[fx.Node, int] = {}

    def depth(self, node: fx.Node) -> int:
        """Returns how many links a node lies inside."""
        outer = self.links.around(node)
        if outer is None:
            return 0
        end = outer[1]
        if end not in self.depths:
            self.depths[end] = self.depth(end) + 1
        return self.depths[end]

    def follow(self, run: Sequence[fx.Node]) -> None:
        """Adds the chain along a run of links, if it has two positions."""
        entry = self.links.entries.get(run[0])
        cuts = [*([entry] if entry else []), *(node for node in run if node.op != "output")]
        positions = _positions(cuts, self.shapes)
        if len(positions) < 2:
            return
        region = self.region.between(cuts[0], cuts[-1])
        outer = self._outer(run[0])
        name = self._free_name("main" if run[-1].op == "output" else common_path(region.nodes[1:]) or cuts[-1].name)
        parent = None if outer is None else (outer[0].chain.name, *_around(outer[0], outer[1]))
        readers = [user for user in cuts[-1].users if user in self.region.index]
        join = readers[0] if outer is not None and len(readers) == 1 else None
        found = ChainRegion(Chain(name, tuple(positions), parent), region, join)
        self.found.append(found)
        self.chain_of.update(dict.fromkeys(run, found))

    def _outer(self, first: fx.Node) -> tuple[ChainRegion, tuple[fx.Node, fx.Node]] | None:
        """Returns the innermost chain around a run, and the link of it that the run lies inside."""
        link = self.links.around(first)
        while link is not None and link[1] not in self.chain_of:
            link = self.links.around(link[0])
        return None if link is None else (self.chain_of[link[1]], link)

    def _free_name(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.names:
            count += 1
            name = f"{wanted}~{count}"
        self.names.add(name)
        return name


def _around(outer: ChainRegion, link: tuple[fx.Node, fx.Node]) -> tuple[int, int]:
    """Returns the last position at or before a link's start and the first at or after its end."""
    index, (outputs, targets) = outer.region.index, outer.places
    end = index.get(link[1], len(index))
    return max(bisect_right(outputs, index[link[0]]) - 1, 0), min(bisect_left(targets, end), len(targets) - 1)


def _positions(cuts: list[fx.Node], shapes: Shapes) -> list[Position]:
    """Returns the useful ones among a chain's cuts: after an operator with its norm, an add or a pool."""
    positions: list[Position] = []
    for index, node in enumerate(cuts):
        following = cuts[index + 1] if index + 1 < len(cuts) else None
        first, last = index == 0, following is None
        if shapes.per_sample(node.name) is None or (not first and _continues(node, following)):
            continue
        if _absorbed(node, cuts[index - 1] if index > 1 else None):
            positions.append(Position(cuts[index - 1].name, node.name))
        elif first or last or _useful(node):
            positions.append(Position(node.name, node.name))
    return positions


def _continues(node: fx.Node, following: fx.Node | None) -> bool:
    """Says whether the position belongs after the next node: its activation, batch norm, scale by weights or layout."""
    if following is None or list(node.users) != [following]:
        return False
    kind, after = kind_of(node), kind_of(following)
    if after is Kind.ACTIVATION:
        return kind is not Kind.ACTIVATION
    if kind is Kind.OPERATOR:
        return _is_batch_norm(following) or (after in {Kind.MULTIPLY, Kind.ADD} and _by_weights(following))
    return kind in _POOLED and after in _LAYOUT and _useful(following)


def _by_weights(node: fx.Node) -> bool:
    """Says whether a product or sum has one data operand only: a layer scale, a bias."""
    return all(source.op == "get_attr" for source in node.all_input_nodes[1:])


def _absorbed(node: fx.Node, before: fx.Node | None) -> bool:
    """Says whether `node` is the activation of the cut before it."""
    return before is not None and kind_of(node) is Kind.ACTIVATION and _continues(before, node)


def _is_batch_norm(node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module_of(node), BATCH_NORMS)


def _useful(node: fx.Node) -> bool:
    """Says whether a cut that only changes the layout is worth a position: an operator or several nodes read it."""
    if kind_of(node) not in _LAYOUT or len(node.users) > 1:
        return True
    return any(kind_of(user) is Kind.OPERATOR for user in node.users)
