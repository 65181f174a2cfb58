"""Segments: which stretches between positions may be replaced or removed, and why the others may not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import final

from torch import fx

from compressors.analysis.chains import ChainRegion, find_chains
from compressors.analysis.flow import main_region, side_data, side_nodes
from compressors.analysis.kinds import Kind, kind_of, module_of
from compressors.analysis.names import Names
from compressors.analysis.reach import BARRIERS, Blocked, StandIn, stand_in
from compressors.analysis.segments import Analysis, Position, Refusal, Segment
from compressors.analysis.sites import find_sites
from compressors.graph import Graph
from compressors.shapes import Shapes, propagate


@dataclass(frozen=True)
class Limits:
    """How far the analysis looks.

    Attributes:
        span: Most positions that one segment may cover, counted from its entry; >= 1.
        kernel: Largest kernel that a regressed convolution may have; odd.
    """

    span: int = 4
    kernel: int = 5


def analyse(graph: Graph, limits: Limits | None = None) -> Analysis:
    """Returns sites, chains, segments and refusals, from the graph alone.

    Args:
        graph: Any graph in module form, cut or not.
        limits: How many candidates to look for; the time grows linearly with `span`.
    """
    shapes = propagate(graph.module, graph.inputs)
    main = main_region(graph.module, shapes)
    regions = find_chains(main, shapes)
    search = _Search(graph, shapes, main.index, limits or Limits())
    for region in regions:
        search.scan(region)
    return Analysis(
        find_sites(graph.module, shapes),
        tuple(region.chain for region in regions),
        tuple(search.segments),
        tuple(search.refusals),
    )


@dataclass(frozen=True)
class _Stretch:
    """Candidate nodes between two positions of a chain."""

    chain: str
    start: int
    end: int
    entry: fx.Node
    nodes: tuple[fx.Node, ...]
    kinds: tuple[Kind, ...]

    @property
    def exit(self) -> fx.Node:
        return self.nodes[-1]

    def of_kind(self, kind: Kind) -> tuple[str, ...]:
        return tuple(node.name for node, known in zip(self.nodes, self.kinds, strict=True) if known is kind)

    @property
    def worth_replacing(self) -> bool:
        """Whether there is depth to gain: an activation or two operators."""
        return Kind.ACTIVATION in self.kinds or self.kinds.count(Kind.OPERATOR) > 1


@final
class _Search:
    """Collects segments and refusals over all chains."""

    def __init__(self, graph: Graph, shapes: Shapes, data: Container[fx.Node], limits: Limits) -> None:
        self.data = data
        self.sides = side_data(graph.module, shapes)
        self.shapes = shapes
        self.limits = limits
        self.nodes = {node.name: node for node in graph.module.graph.nodes}
        self.order = {node: place for place, node in enumerate(self.nodes.values())}
        self.kinds = {node: kind_of(node) for node in self.nodes.values()}
        self.names = Names(self.kinds)
        self.calls = Counter(str(n.target) for n in self.nodes.values() if n.op == "call_module")
        self.seen: set[tuple[str, str]] = set()
        self.segments: list[Segment] = []
        self.refusals: list[Refusal] = []
        self.blamed: set[tuple[str, fx.Node]] = set()

    def scan(self, region: ChainRegion) -> None:
        """Looks at every pair of positions of one chain that lie close enough."""
        positions = region.chain.positions
        for start in range(len(positions) - 1):
            for stretch in self._stretches(region, positions, start):
                self._consider(stretch, region)
        self._explain_end(region)

    def _stretches(self, region: ChainRegion, positions: Sequence[Position], start: int) -> Iterator[_Stretch]:
        """Yields growing stretches from one position; nothing inside a chain is read outside of it."""
        entry = self.nodes[positions[start].output]
        index = region.region.index
        for end in range(start + 1, min(start + self.limits.span, len(positions) - 1) + 1):
            exit_ = self.nodes[positions[end].target]
            nodes = region.region.nodes[index[entry] + 1 : index[exit_] + 1]
            if not nodes or (entry.name, exit_.name) in self.seen:
                continue
            kinds = tuple(self.kinds[node] for node in nodes)
            stretch = _Stretch(region.chain.name, start, end, entry, nodes, kinds)
            yield stretch

    def _consider(self, stretch: _Stretch, region: ChainRegion) -> None:
        """Adds a segment, or says why there is none."""
        self.seen.add((stretch.entry.name, stretch.exit.name))
        if self._whole_branch(stretch, region) or not self._batched(stretch):
            return
        shared = self._shared(stretch)
        if shared is None:
            self._decide(stretch)
        elif stretch.end == stretch.start + 1:
            self._refuse(stretch, "shared-module", f"calls {shared!r}, which the model also calls elsewhere")

    def _decide(self, stretch: _Stretch) -> None:
        """Works out the choices for a stretch."""
        removable = Kind.OPERATOR in stretch.kinds and self._same_shape(stretch)
        neighbours = stretch.end == stretch.start + 1
        found = StandIn((), (), ())
        if stretch.worth_replacing or (neighbours and not BARRIERS.isdisjoint(stretch.kinds)):
            outcome = self._stand_in(stretch)
            if isinstance(outcome, StandIn):
                found = outcome
            elif neighbours:
                whole = "; it can only be removed whole" if removable else ""
                self._refuse(stretch, outcome.code, outcome.reason + whole)
        if found.kernels or (removable and neighbours):
            self.segments.append(self._segment(stretch, found, removable))

    def _stand_in(self, stretch: _Stretch) -> StandIn | Blocked:
        """Returns what one operator may stand for, which reads the entry and nothing else."""
        for node in stretch.nodes:
            if any(source in self.sides for source in node.all_input_nodes):
                return Blocked("reads-side-input", f"also reads what another input decides ({node.name!r})")
        kinds = dict(zip(stretch.nodes, stretch.kinds, strict=True))
        return stand_in(kinds, stretch.entry, self.shapes, self.limits.kernel)

    def _segment(self, stretch: _Stretch, found: StandIn, removable: bool) -> Segment:
        inside = {*stretch.nodes, *side_nodes(stretch.nodes, self.data)}
        return Segment(
            name=self.names.stretch(stretch.nodes),
            chain=stretch.chain,
            start=stretch.start,
            end=stretch.end,
            entry=stretch.entry.name,
            exit=stretch.exit.name,
            nodes=tuple(node.name for node in sorted(inside, key=self.order.__getitem__)),
            sites=stretch.of_kind(Kind.ACTIVATION),
            operators=stretch.of_kind(Kind.OPERATOR),
            input_shape=self._sample_shape(stretch.entry),
            output_shape=self._sample_shape(stretch.exit),
            kernels=found.kernels,
            stride=found.stride,
            removable=removable,
            approximates=found.approximates,
        )

    def _sample_shape(self, node: fx.Node) -> tuple[int, ...]:
        shape = self.shapes.per_sample(node.name)
        assert shape is not None
        return shape

    def _batched(self, stretch: _Stretch) -> bool:
        return None not in {self.shapes.per_sample(n.name) for n in (stretch.entry, stretch.exit)}

    def _same_shape(self, stretch: _Stretch) -> bool:
        shapes = {(self.shapes.per_sample(n.name), self.shapes.dtypes[n.name]) for n in (stretch.entry, stretch.exit)}
        return len(shapes) == 1

    def _whole_branch(self, stretch: _Stretch, region: ChainRegion) -> bool:
        """Says whether the stretch is one whole side of an add.

        The parallel region as a whole is a better segment: replacing it takes the add away too, and removing only one
        side would leave x + x.
        """
        if region.join is None or self.kinds[region.join] is not Kind.ADD:
            return False
        return stretch.start == 0 and stretch.end == len(region.chain.positions) - 1

    def _explain_end(self, region: ChainRegion) -> None:
        """Says why a chain ends where several parts of the model read its last tensor."""
        nodes = region.region.nodes
        readers = [user for user in nodes[-1].users if user in self.data and user.op != "output"]
        if len(readers) > 1 and Kind.ACTIVATION in {self.kinds[node] for node in nodes[1:]}:
            where = self.names.stretch(nodes[1:])
            reason = f"{len(readers)} parts of the model read its output {nodes[-1].name!r}"
            self.refusals.append(Refusal(where, f"No cut can reach beyond {where}: {reason}.", "used-elsewhere"))

    def _shared(self, stretch: _Stretch) -> str | None:
        """Returns a module with weights that is called inside and outside."""
        called = Counter(str(node.target) for node in stretch.nodes if node.op == "call_module")
        for node in stretch.nodes:
            target = str(node.target)
            if node.op == "call_module" and self.calls[target] > called[target] and _has_weights(node):
                return target
        return None

    def _refuse(self, stretch: _Stretch, code: str, reason: str) -> None:
        """Adds a refusal, unless one with the same code has been given for a stretch around this one."""
        blamed = {(code, node) for node in stretch.nodes}
        if blamed <= self.blamed:
            return
        self.blamed |= blamed
        where = self.names.stretch(stretch.nodes)
        self.refusals.append(Refusal(where, f"No single operator can stand for {where}: it {reason}.", code))


def _has_weights(node: fx.Node) -> bool:
    return next(module_of(node).parameters(), None) is not None
