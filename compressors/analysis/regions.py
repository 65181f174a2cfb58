"""The merge regions of a graph: every stretch of every chain that can become one operator."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import final

from torch import fx

from compressors.analysis.chains import ChainRegion, find_chains
from compressors.analysis.flow import main_region, side_data, side_nodes
from compressors.analysis.kinds import Kind, kind_of, module_of
from compressors.analysis.merges import MergeOption, MergeRegion, Options, merge_options, region_macs
from compressors.analysis.names import Names
from compressors.analysis.normback import groups_behind
from compressors.analysis.reach import Blocked
from compressors.analysis.segments import Position, Refusal
from compressors.graph import Graph
from compressors.modules import BATCH_NORMS
from compressors.shapes import Shapes, propagate


@dataclass(frozen=True)
class Reach:
    """How far the search for merge regions goes.

    Attributes:
        span: Most positions that one region covers, counted from its entry.
        stages: Whether no region crosses the tensor with which the first residual block of a new resolution begins;
            LayerMerge's breaks. What would cross it is exact too, so this is for parity.
        activations: Whether regions may hold activations, and norms that look at the sample; if not, only what is
            affine already is found.
        options: Which merged operators are offered.
    """

    span: int = 8
    stages: bool = False
    activations: bool = True
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class MergeSpace:
    """Everything that can be merged, and why the rest cannot.

    Attributes:
        regions: In the order of their chains and entries; single operators, which merge with nothing, among them.
        refusals: Each reason once, with the shortest stretch that it holds for.
    """

    regions: tuple[MergeRegion, ...]
    refusals: tuple[Refusal, ...]


def merge_space(graph: Graph, reach: Reach | None = None) -> MergeSpace:
    """Returns every merge region of a graph within reach."""
    shapes = propagate(graph.module, graph.inputs)
    search = _Search(graph, shapes, reach or Reach())
    for chain in find_chains(search.main, shapes):
        search.scan(chain)
    return MergeSpace(tuple(search.regions), tuple(search.refusals))


@final
class _Search:
    """Collects the regions of all chains."""

    def __init__(self, graph: Graph, shapes: Shapes, reach: Reach) -> None:
        self.shapes = shapes
        self.reach = reach
        self.main = main_region(graph.module, shapes)
        self.sides = side_data(graph.module, shapes)
        self.nodes = {node.name: node for node in graph.module.graph.nodes}
        self.order = {node: place for place, node in enumerate(self.nodes.values())}
        self.kinds = {node: kind_of(node) for node in self.nodes.values()}
        self.names = Names(self.kinds)
        self.calls = Counter(str(n.target) for n in self.nodes.values() if n.op == "call_module")
        self.regions: list[MergeRegion] = []
        self.refusals: list[Refusal] = []
        self.said: set[Blocked] = set()

    def scan(self, chain: ChainRegion) -> None:
        """Adds the regions between any two positions of one chain."""
        positions = chain.chain.positions
        ends = [index for index in range(1, len(positions)) if self._ends(chain, index)]
        walls = self._walls(positions) if self.reach.stages else []
        for start in range(len(positions) - 1):
            wall = [*walls, len(positions)][bisect_right(walls, start)]
            last = min(start + self.reach.span, wall)
            for end, nodes in self._stretches(chain, start, ends[bisect_right(ends, start) : bisect_right(ends, last)]):
                if not self._add(chain, (start, end), nodes):
                    break

    def _ends(self, chain: ChainRegion, index: int) -> bool:
        """Says whether a region may end at a position: an operator lies right before it."""
        index_of, positions = chain.region.index, chain.chain.positions
        before = index_of[self.nodes[positions[index - 1].output]]
        here = index_of[self.nodes[positions[index].target]]
        return any(self.kinds[node] is Kind.OPERATOR for node in chain.region.nodes[before + 1 : here + 1])

    def _stretches(
        self, chain: ChainRegion, start: int, ends: Sequence[int]
    ) -> Iterator[tuple[int, tuple[fx.Node, ...]]]:
        """Yields growing stretches from a position at which an operator starts."""
        index, positions = chain.region.index, chain.chain.positions
        entry = self.nodes[positions[start].output]
        for end in ends:
            exit_ = self.nodes[positions[end].target]
            nodes = chain.region.nodes[index[entry] + 1 : index[exit_] + 1]
            inside = set(nodes)
            if not any(user in inside and self.kinds[user] is Kind.OPERATOR for user in entry.users):
                return
            if not (start == 0 and end == len(positions) - 1 and self._closes_block(chain)):
                yield end, nodes

    def _closes_block(self, chain: ChainRegion) -> bool:
        """Says whether a chain is one side of an add: the block as a whole, with its add, is the better region."""
        return chain.join is not None and self.kinds[chain.join] is Kind.ADD

    def _walls(self, positions: Sequence[Position]) -> list[int]:
        """Returns the positions with which the first residual block of each resolution begins."""
        walls, known = [], None
        for index, position in enumerate(positions):
            size = self.shapes.full[position.output][2:]
            if size != known and len(self.nodes[position.output].users) > 1:
                walls.append(index)
                known = size
        return walls

    def _add(self, chain: ChainRegion, ends: tuple[int, int], nodes: tuple[fx.Node, ...]) -> bool:
        """Adds one region; returns whether a longer one may still be found."""
        entry = self.nodes[chain.chain.positions[ends[0]].output]
        if any(self.shapes.per_sample(node.name) is None for node in (entry, nodes[-1])):
            return False
        kinds = {node: self.kinds[node] for node in nodes}
        if not self.reach.activations and any(self._lossy(node) for node in nodes):
            return False
        found = self._shared(nodes) or merge_options(kinds, entry, self.shapes, self.sides, self.reach.options)
        if isinstance(found, Blocked):
            self._refuse(nodes, found)
            return found.code != "not-affine"
        if found:
            self.regions.append(self._region(chain, ends, nodes, found))
        return True

    def _refuse(self, nodes: tuple[fx.Node, ...], found: Blocked) -> None:
        """Says once why a stretch, and all that hold it, cannot be merged."""
        if found not in self.said:
            self.said.add(found)
            where = self.names.stretch(nodes)
            self.refusals.append(Refusal(where, f"{where} cannot be merged: it {found.reason}.", found.code))

    def _region(
        self, chain: ChainRegion, ends: tuple[int, int], nodes: tuple[fx.Node, ...], options: tuple[MergeOption, ...]
    ) -> MergeRegion:
        positions = chain.chain.positions
        inside = {*nodes, *side_nodes(nodes, self.main.index)}
        kinds = {node: self.kinds[node] for node in nodes}

        def names(*wanted: Kind) -> tuple[str, ...]:
            return tuple(node.name for node, kind in kinds.items() if kind in wanted)

        return MergeRegion(
            name=self.names.stretch(nodes),
            chain=chain.chain.name,
            start=ends[0],
            end=ends[1],
            entry=positions[ends[0]].output,
            exit=nodes[-1].name,
            nodes=tuple(node.name for node in sorted(inside, key=self.order.__getitem__)),
            sites=names(Kind.ACTIVATION),
            norms=tuple(n for n in names(Kind.NORM) if not isinstance(module_of(self.nodes[n]), BATCH_NORMS)),
            operators=names(Kind.OPERATOR),
            macs=region_macs(kinds, self.shapes),
            input_shape=self.shapes.full[positions[ends[0]].output][1:],
            output_shape=self.shapes.full[nodes[-1].name][1:],
            options=options,
            norm_groups=groups_behind(kinds, self.nodes[positions[ends[0]].output], self.shapes),
        )

    def _lossy(self, node: fx.Node) -> bool:
        """Says whether a node would have to become a line."""
        kind = self.kinds[node]
        return kind is Kind.ACTIVATION or (kind is Kind.NORM and not isinstance(module_of(node), BATCH_NORMS))

    def _shared(self, nodes: Sequence[fx.Node]) -> Blocked | None:
        """Refuses a stretch with a module that is called elsewhere too."""
        for node in nodes:
            if node.op == "call_module" and self.calls[str(node.target)] > 1 and self.kinds[node] is Kind.OPERATOR:
                return Blocked("shared-module", f"calls {node.target!r}, which the model calls several times")
        return None
