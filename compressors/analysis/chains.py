"""Chains of positions: the network's main chain, and one inside every branch of every parallel region."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import fx

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


def find_chains(region: Region, shapes: Shapes) -> list[ChainRegion]:
    """Returns the main chain first, then the chains inside its parallel regions, each before those inside it."""
    finder = _Finder(shapes)
    finder.follow(region, "main", None, None)
    return finder.found


@final
class _Finder:
    """Walks down into parallel regions; each branch is visited once."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes
        self.found: list[ChainRegion] = []
        self.visited: set[tuple[fx.Node, fx.Node]] = set()
        self.names: set[str] = set()

    def follow(self, region: Region, name: str, parent: tuple[str, int, int] | None, join: fx.Node | None) -> None:
        """Adds the chain through `region`, then the chains inside it."""
        pending = [(region, name, parent, join)]
        while pending:
            region, name, parent, join = pending.pop(0)
            cuts = [node for node in region.cuts() if node.op != "output"]
            positions = _positions(cuts, self.shapes)
            if len(positions) < 2:
                continue
            self.names.add(name)
            chain = Chain(name, tuple(positions), parent)
            self.found.append(ChainRegion(chain, region, join))
            places = _places(chain, region)
            for start, end in pairwise(cuts):
                around = _around(places, region.index[start], region.index[end])
                pending.extend(self._branches(region, (chain.name, *around), start, end))

    def _branches(
        self, region: Region, parent: tuple[str, int, int], start: fx.Node, end: fx.Node
    ) -> list[tuple[Region, str, tuple[str, int, int], fx.Node]]:
        """Returns the branches between two neighbouring cuts that have not been visited."""
        branches = []
        for operand in end.all_input_nodes:
            key = (start, operand)
            if operand is start or operand not in region.index or key in self.visited:
                continue
            self.visited.add(key)
            branch = region.between(start, operand)
            name = self._free_name(common_path(branch.nodes[1:]) or operand.name)
            branches.append((branch, name, parent, end))
        return branches

    def _free_name(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.names:
            count += 1
            name = f"{wanted}~{count}"
        self.names.add(name)
        return name


def _places(chain: Chain, region: Region) -> tuple[list[int], list[int]]:
    """Returns where in the region the outputs and the targets of a chain's positions stand; both ascend."""
    index = {node.name: place for node, place in region.index.items()}
    return [index[p.output] for p in chain.positions], [index[p.target] for p in chain.positions]


def _around(places: tuple[list[int], list[int]], start: int, end: int) -> tuple[int, int]:
    """Returns the indices of the last position at or before `start` and the first at or after `end`."""
    outputs, targets = places
    return max(bisect_right(outputs, start) - 1, 0), min(bisect_left(targets, end), len(targets) - 1)


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
