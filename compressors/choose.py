"""From a latency table and the harm of each cut to the best set of cuts for a time: chains are paths to be solved."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from compressors.solve import Edge, Frontier, Grid, Path, Rounding, Solution, solve
from compressors.table import Alternative, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressors.analysis.segments import Analysis, Chain
    from compressors.graph import Graph
    from compressors.plan import Step

TICKS = 4000
"""Resolution: the whole original network takes so many ticks, so that rounding up costs well under one percent."""


@dataclass(frozen=True)
class Choice:
    """A set of cuts.

    Attributes:
        alternatives: What is put in, in topological order.
        seconds: Sum over the table: the cuts and everything that is kept.
        harm: Sum of the harms.
    """

    alternatives: tuple[Alternative, ...]
    seconds: float
    harm: float

    @property
    def steps(self) -> tuple[Step, ...]:
        """Returns the cuts, in topological order."""
        return tuple(alternative.step for alternative in self.alternatives)


class Chooser:
    """Solves for the least harm within a time, given harms.

    Args:
        graph: The original.
        analysis: Its chains.
        table: Seconds of everything.
        rounding: How times become ticks; "down" is as published.
    """

    def __init__(self, graph: Graph, analysis: Analysis, table: Table, rounding: Rounding = "up") -> None:
        self._order = {node.name: at for at, node in enumerate(graph.module.graph.nodes)}
        self._chains = {chain.name: chain for chain in analysis.chains}
        self._inside: dict[tuple[str, int, int], list[Chain]] = defaultdict(list)
        for chain in analysis.chains:
            if chain.parent is not None:
                self._inside[chain.parent].append(chain)
        self._table = table
        # No chain, nothing to choose: a network without a position takes no time that a plan could change.
        self._roots = [chain for chain in analysis.chains if chain.parent is None]
        self.whole = sum(sum(table.kept[chain.name]) for chain in self._roots)
        self._grid = Grid(Fraction(TICKS) / Fraction(max(self.whole, 1e-12)), rounding)

    def least_harm(self, harms: Mapping[Step, float], seconds: float) -> Choice | None:
        """Returns the cuts with the least total harm that fit into `seconds` of the table; None where none do.

        Args:
            harms: Harm of each cut that may be taken, >= 0; a cut that is not named is not taken.
            seconds: On the table's scale.
        """
        budget = min(self._grid.budget(max(seconds, 0.0)), TICKS + len(self._order))
        solution = self._frontier(harms, budget).at(budget)
        return None if solution is None else self._choice(solution, harms)

    def fastest(self) -> Choice:
        """Returns the cuts that take the least time, whatever they do to the network."""
        saved = {alternative.step: alternative.saved for alternative in self._table.alternatives}
        paths = tuple(self._path(chain, dict.fromkeys(saved, 0.0), by_time=True) for chain in self._roots)
        budget = TICKS + len(self._order)
        solution = solve(_one(paths), self._grid, budget).at(budget)
        assert solution is not None
        return self._choice(solution, dict.fromkeys(saved, 0.0))

    def _frontier(self, harms: Mapping[Step, float], budget: int) -> Frontier:
        return solve(_one(tuple(self._path(chain, harms) for chain in self._roots)), self._grid, budget)

    def _path(self, chain: Chain, harms: Mapping[Step, float], *, by_time: bool = False) -> Path:
        edges = [self._kept_edge(chain, index, harms, by_time=by_time) for index in range(len(chain.positions) - 1)]
        for alternative in self._table.alternatives:
            cut, harm = alternative.cut, harms.get(alternative.step)
            if cut.chain == chain.name and harm is not None:
                worth = -alternative.seconds if by_time else -harm
                edges.append(Edge(cut.start, cut.end, alternative.seconds, worth, alternative))
        return Path(len(chain.positions) - 1, tuple(edges))

    def _kept_edge(self, chain: Chain, index: int, harms: Mapping[Step, float], *, by_time: bool) -> Edge:
        """Returns a stretch that stays; what can be cut inside its branches is decided with it."""
        seconds = self._table.kept[chain.name][index]
        available = self._available(harms)
        inner = [inside for inside in self._inside[chain.name, index, index + 1] if inside.name in available]
        rest = max(0.0, seconds - sum(sum(self._table.kept[inside.name]) for inside in inner))
        paths = tuple(self._path(inside, harms, by_time=by_time) for inside in inner)
        return Edge(index, index + 1, rest, -rest if by_time else 0.0, None, paths)

    def _available(self, harms: Mapping[Step, float]) -> set[str]:
        """Returns the names of the chains in which something may be cut, in chains inside them included."""
        found: set[str] = set()
        for alternative in self._table.alternatives:
            name: str | None = alternative.cut.chain if alternative.step in harms else None
            while name is not None and name not in found:
                found.add(name)
                parent = self._chains[name].parent
                name = None if parent is None else parent[0]
        return found

    def _choice(self, solution: Solution, harms: Mapping[Step, float]) -> Choice:
        taken = [edge.label for edge in solution.edges if isinstance(edge.label, Alternative)]
        taken.sort(key=lambda alternative: self._order[alternative.step.exit])
        return Choice(tuple(taken), solution.time, sum(harms[alternative.step] for alternative in taken))


def _one(paths: Sequence[Path]) -> Path:
    """Returns all paths as one edge of a path, to be solved together."""
    return Path(1, (Edge(0, 1, 0.0, 0.0, None, tuple(paths)),))
