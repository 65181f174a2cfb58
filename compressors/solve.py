"""The exact budget solver: which edges of a chain to take so that the importance is greatest within a time budget.

A solution is a path 0 = p0 < p1 < ... < pm = L through the positions of a chain; each step takes one edge. With times
counted in whole ticks, g = ceil(T * P) (or floor, as the published code does), the best sum of importances is

    M[0][t] = 0                                                              for every 0 <= t <= B
    M[j][t] = max over edges (i, j) with g <= t and M[i][t-g] defined of M[i][t-g] + I       (LayerMerge, section 1.2)

Rounding up means that a plan never exceeds its budget by rounding. On equal importance (to seven decimals) the path
with fewer ticks wins, then the edge that was given first. `M[L]` is the whole frontier: the answer for every budget.

Nested chains: an edge may hold inner chains, the stretches inside its branches that can be cut on their own. Their best
answers form a frontier of (ticks, importance) points, found by the same recursion, and each point becomes one more
alternative of the edge: time of the rest of the edge plus the inner ticks, importance of the edge plus the inner sum.

With E alternatives and budget B in ticks: time O(B * E), memory O(B * L); an inner frontier has at most B + 1 points.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from math import ceil, floor
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Rounding = Literal["up", "down"]
Time = float | Decimal | Fraction

_DECIMALS = 7
"""Importances that agree to this many decimals are ties (the published code's rule)."""

_UNREACHED = -1


@dataclass(frozen=True)
class Grid:
    """How time is cut into ticks.

    Attributes:
        per_unit: Ticks per unit of time, > 0.
        rounding: "up" keeps every plan within its budget; "down" is the published behaviour.
    """

    per_unit: Time
    rounding: Rounding = "up"

    def ticks(self, time: Time) -> int:
        """Returns `time` in whole ticks; exact on the decimal value that is printed, so 0.58 at 100 per unit is 58."""
        exact = _exact(time) * _exact(self.per_unit)
        return ceil(exact) if self.rounding == "up" else floor(exact)

    def budget(self, time: Time) -> int:
        """Returns a budget in whole ticks, always rounded down."""
        return floor(_exact(time) * _exact(self.per_unit))


@dataclass(frozen=True)
class Edge:
    """One way to get from one position of a chain to a later one.

    Attributes:
        start: Position it leaves, >= 0.
        end: Position it reaches, > start.
        time: What it takes, >= 0; without the inner chains where it has some.
        importance: What it is worth; the solver maximises the sum, so a harm goes in negative.
        label: The caller's name for it, carried into the solution.
        inner: Chains inside this edge that are solved with it.
    """

    start: int
    end: int
    time: Time
    importance: float
    label: object = None
    inner: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"an edge leads forward from a position >= 0; got ({self.start}, {self.end})")
        if self.time < 0:
            raise ValueError(f"edge ({self.start}, {self.end}): time must be >= 0, got {self.time}")


@dataclass(frozen=True)
class Path:
    """A chain to be crossed from position 0 to position `length`.

    Attributes:
        length: Index of the last position, >= 1.
        edges: All alternatives; their order breaks what is still tied.
    """

    length: int
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        beyond = [edge for edge in self.edges if edge.end > self.length]
        if beyond:
            raise ValueError(f"edge ({beyond[0].start}, {beyond[0].end}) ends beyond the chain's last, {self.length}")


@dataclass(frozen=True)
class Solution:
    """The best path for one budget.

    Attributes:
        edges: The edges taken, in order; those of inner chains follow the edge that holds them.
        importance: Sum over `edges`.
        ticks: Sum of their ticks.
    """

    edges: tuple[Edge, ...]
    importance: float
    ticks: int

    @property
    def time(self) -> float:
        """Sum of the exact times, before they were cut into ticks."""
        return float(sum((_exact(edge.time) for edge in self.edges), Fraction(0)))


@dataclass(frozen=True)
class _Choice:
    """One alternative with its ticks, inner chains already decided."""

    start: int
    ticks: int
    importance: float
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Frontier:
    """The best path for every budget from 0 to `budget` ticks.

    Attributes:
        budget: Largest budget, in ticks.
    """

    budget: int
    _best: NDArray[np.float64]  # (L + 1, B + 1)
    _spent: NDArray[np.int64]  # (L + 1, B + 1)
    _taken: NDArray[np.int32]  # (L + 1, B + 1): index into _choices[j]
    _choices: tuple[tuple[_Choice, ...], ...]

    def at(self, ticks: int) -> Solution | None:
        """Returns the best path within `ticks`, or None where there is none.

        Raises:
            ValueError: `ticks` lies outside of what was solved.
        """
        if not 0 <= ticks <= self.budget:
            raise ValueError(f"this frontier was solved for 0 to {self.budget} ticks; got {ticks}")
        last = len(self._choices) - 1
        if self._spent[last, ticks] == _UNREACHED:
            return None
        reversed_edges: list[tuple[Edge, ...]] = []
        position, left = last, ticks
        while position > 0:
            choice = self._choices[position][self._taken[position, left]]
            reversed_edges.append(choice.edges)
            position, left = choice.start, left - choice.ticks
        edges = tuple(edge for group in reversed(reversed_edges) for edge in group)
        return Solution(edges, float(self._best[last, ticks]), int(self._spent[last, ticks]))

    @cached_property
    def points(self) -> tuple[Solution, ...]:
        """The Pareto-optimal paths, cheapest first: each is worth more than all that are cheaper."""
        found: list[Solution] = []
        last = len(self._choices) - 1
        value = np.round(self._best[last], _DECIMALS)
        best = -np.inf
        for ticks in np.flatnonzero(self._spent[last] != _UNREACHED):
            if value[ticks] > best:
                best = value[ticks]
                solution = self.at(int(ticks))
                assert solution is not None
                found.append(solution)
        return tuple(found)


def solve(path: Path, grid: Grid, budget: int) -> Frontier:
    """Returns the best path for every budget up to `budget`, in one pass.

    Args:
        path: The chain and its alternatives.
        grid: How time becomes ticks.
        budget: Largest budget in ticks (`grid.budget`), >= 0.

    Returns:
        The frontier; `frontier.at(budget)` is the answer for that budget.

    Raises:
        ValueError: The budget is negative.

    Source:
        LayerMerge (ICML 2024), with every state of position 0 initialised and times rounded up by default.
    """
    if budget < 0:
        raise ValueError(f"a budget is >= 0 ticks; got {budget}")
    choices = _choices(path, grid, budget)
    size = (path.length + 1, budget + 1)
    best = np.full(size, -np.inf)
    spent = np.full(size, _UNREACHED, dtype=np.int64)
    taken = np.zeros(size, dtype=np.int32)
    best[0], spent[0] = 0.0, 0
    for position in range(1, path.length + 1):
        for index, choice in enumerate(choices[position]):
            _relax(best, spent, taken, (position, index, choice))
    return Frontier(budget, best, spent, taken, choices)


def _relax(
    best: NDArray[np.float64],
    spent: NDArray[np.int64],
    taken: NDArray[np.int32],
    step: tuple[int, int, _Choice],
) -> None:
    """Offers one choice to every budget of its end position, all at once."""
    position, index, choice = step
    width = best.shape[1] - choice.ticks
    before, used = best[choice.start, :width], spent[choice.start, :width]
    value, ticks = before + choice.importance, used + choice.ticks
    here, here_ticks = best[position, choice.ticks :], spent[position, choice.ticks :]
    # Position 0 is the only one whose states all count as reached; elsewhere -inf says "no path".
    reached = used != _UNREACHED
    new, old = np.round(value, _DECIMALS), np.round(here, _DECIMALS)
    better = reached & ((here_ticks == _UNREACHED) | (new > old) | ((new == old) & (ticks < here_ticks)))
    here[better], here_ticks[better] = value[better], ticks[better]
    taken[position, choice.ticks :][better] = index


def _choices(path: Path, grid: Grid, budget: int) -> tuple[tuple[_Choice, ...], ...]:
    """Returns every alternative that fits the budget, grouped by end position."""
    grouped: list[list[_Choice]] = [[] for _ in range(path.length + 1)]
    for edge in path.edges:
        grouped[edge.end].extend(choice for choice in _expand(edge, grid, budget) if choice.ticks <= budget)
    return tuple(tuple(group) for group in grouped)


def _expand(edge: Edge, grid: Grid, budget: int) -> Iterable[_Choice]:
    """Returns the edge itself, or one choice per point of its inner frontier."""
    own = grid.ticks(edge.time)
    if not edge.inner:
        return [_Choice(edge.start, own, edge.importance, (edge,))]
    if own > budget:
        return []
    inner = solve(_joined(edge.inner), grid, budget - own)
    return [
        _Choice(edge.start, own + point.ticks, edge.importance + point.importance, (edge, *point.edges))
        for point in inner.points
    ]


def _joined(paths: Sequence[Path]) -> Path:
    """Returns independent chains end to end: crossing all of them is crossing one chain."""
    edges: list[Edge] = []
    offset = 0
    for path in paths:
        edges.extend(
            Edge(edge.start + offset, edge.end + offset, edge.time, edge.importance, edge.label, edge.inner)
            for edge in path.edges
        )
        offset += path.length
    return Path(offset, tuple(edges))


def _exact(time: Time) -> Fraction:
    """Returns the decimal value that `time` is written as, not its binary neighbour."""
    return Fraction(repr(time)) if isinstance(time, float) else Fraction(time)
