"""The budget solver against the published cases and against trying everything."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path as FilePath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compressors.solve import Edge, Grid, Path, solve

ORACLE: dict[str, Any] = json.loads((FilePath(__file__).parent / "data" / "layermerge_dp_oracle.json").read_text())


def oracle_path() -> Path:
    edges = []
    for ends, choices in ORACLE["table"].items():
        start, end = map(int, ends.split(","))
        edges += [Edge(start, end, row["T_ms"], row["I"], int(kernel)) for kernel, row in choices.items()]
    return Path(ORACLE["L"], tuple(edges))


@pytest.mark.parametrize("case", ORACLE["cases"], ids=lambda c: f"{c['mode']}-{c['T0']}")
def test_reproduces_the_published_case(case: dict[str, Any]) -> None:
    grid = Grid(case["P"], "down" if case["mode"] == "floor" else "up")
    budget = grid.budget(case["T0"])
    solution = solve(oracle_path(), grid, budget).at(budget)
    if not case["feasible"]:
        assert solution is None
        return
    assert solution is not None
    assert solution.importance == pytest.approx(case["objective"], abs=1e-9)
    assert solution.ticks == case["ticks"]
    assert sum(grid.ticks(edge.time) for edge in solution.edges) == solution.ticks
    found = [[edge.start, edge.end, edge.label] for edge in solution.edges]
    assert found == case["path"]


def best_for(mode: str, budget: float, per_unit: int = 10) -> Any:
    grid = Grid(per_unit, "down" if mode == "floor" else "up")
    return solve(oracle_path(), grid, grid.budget(budget)).at(grid.budget(budget))


TRUE_TIMES = [
    ("floor", 0.6, 0.61), ("floor", 1.9, 1.68), ("floor", 2.6, 2.75), ("floor", 3.5, 3.37), ("floor", 4.4, 4.38),
    ("floor", 5.0, 4.98), ("floor", 5.8, 5.99), ("ceil", 2.6, 2.29), ("ceil", 3.0, 2.75), ("ceil", 3.5, 3.36),
    ("ceil", 4.4, 4.19), ("ceil", 5.0, 4.38), ("ceil", 6.0, 5.80),
]  # fmt: skip
OVER = {0.6, 2.6, 5.8}
"""Budgets that rounding down exceeds."""


@pytest.mark.parametrize(("mode", "budget", "time"), TRUE_TIMES)
def test_true_time_of_the_published_case(mode: str, budget: float, time: float) -> None:
    solution = best_for(mode, budget)
    assert solution.time == pytest.approx(time, abs=1e-9)
    assert (solution.time > budget) == (mode == "floor" and budget in OVER)


def test_on_equal_importance_the_path_with_fewer_ticks_wins() -> None:
    grid, every = Grid(10, "down"), all_paths(oracle_path())
    tied = [edges for edges in every if round(sum(edge.importance for edge in edges), 7) == 1.753]
    assert sorted(sum(grid.ticks(edge.time) for edge in edges) for edges in tied) == [16, 17]
    assert best_for("floor", 1.9).ticks == 16


def test_positions_and_operators_that_a_solution_keeps() -> None:
    edges = best_for("floor", 3.5).edges
    kept = {n for e in edges for n in ORACLE["table"][f"{e.start},{e.end}"][str(e.label)]["C"]}
    assert ({edge.end for edge in edges}, kept) == ({2, 3, 5}, {1, 3, 5})


def test_the_published_table_has_42_solutions() -> None:
    every = all_paths(oracle_path())
    assert len(every) == 42
    whole = max(every, key=len)
    assert sum(edge.time for edge in whole) == pytest.approx(5.99)
    assert sum(edge.importance for edge in whole) == pytest.approx(5.039)


@pytest.mark.parametrize("per_unit", [1, 5, 10, 20, 100])
@pytest.mark.parametrize("rounding", ["up", "down"])
def test_published_table_equals_trying_everything(per_unit: int, rounding: Any) -> None:
    grid, path = Grid(per_unit, rounding), oracle_path()
    budget = grid.budget(6.5)
    frontier = solve(path, grid, budget)
    scored = [
        (sum((Fraction(str(e.importance)) for e in edges), Fraction(0)), sum(grid.ticks(e.time) for e in edges))
        for edges in all_paths(path)
    ]
    for ticks in range(0, budget + 1, max(1, per_unit // 20)):
        within = [(value, spent) for value, spent in scored if spent <= ticks]
        check(frontier.at(ticks), max(within, key=lambda pair: (pair[0], -pair[1]), default=None))


def test_counts_decimal_times_exactly() -> None:
    assert int(0.58 * 100) == 57
    assert Grid(100, "down").ticks(0.58) == 58
    assert Grid(100, "up").ticks(0.58) == 58
    assert Grid(Decimal("0.1"), "up").ticks(Fraction(1, 3)) == 1


def all_paths(path: Path, position: int = 0) -> list[tuple[Edge, ...]]:
    if position == path.length:
        return [()]
    found = []
    for edge in (e for e in path.edges if e.start == position):
        inner = itertools.product(*(all_paths(chain) for chain in edge.inner))
        heads = [(edge, *itertools.chain.from_iterable(parts)) for parts in inner]
        found += [head + tail for head in heads for tail in all_paths(path, edge.end)]
    return found


def brute_force(path: Path, grid: Grid, budget: int) -> tuple[Fraction, int] | None:
    scored = [
        (sum((Fraction(str(e.importance)) for e in edges), Fraction(0)), sum(grid.ticks(e.time) for e in edges))
        for edges in all_paths(path)
    ]
    within = [(value, ticks) for value, ticks in scored if ticks <= budget]
    return max(within, key=lambda pair: (pair[0], -pair[1]), default=None)


def edges(length: int, *, nested: bool) -> st.SearchStrategy[Path]:
    times = st.integers(0, 300).map(lambda n: n / 100)
    values = st.integers(-1000, 1000).map(lambda n: n / 1000)
    ends = st.integers(0, length - 1).flatmap(lambda s: st.tuples(st.just(s), st.integers(s + 1, length)))
    inner = st.lists(edges(2, nested=False), max_size=2).map(tuple) if nested else st.just(())
    edge = st.builds(lambda e, t, v, n: Edge(e[0], e[1], t, v, inner=n), ends, times, values, inner)
    return st.lists(edge, max_size=7).map(lambda found: Path(length, tuple(found)))


@settings(max_examples=150, deadline=None)
@given(edges(4, nested=False), st.sampled_from([1, 5, 10, 20, 100]), st.sampled_from(["up", "down"]))
def test_frontier_equals_trying_everything(path: Path, per_unit: int, rounding: Any) -> None:
    grid = Grid(per_unit, rounding)
    frontier = solve(path, grid, budget=4 * per_unit)
    for ticks in range(0, 4 * per_unit + 1, max(1, per_unit // 5)):
        check(frontier.at(ticks), brute_force(path, grid, ticks))


@settings(max_examples=100, deadline=None)
@given(edges(3, nested=True), st.integers(0, 60))
def test_nested_chains_equal_trying_everything(path: Path, ticks: int) -> None:
    grid = Grid(10)
    solution = solve(path, grid, 60).at(ticks)
    check(solution, brute_force(path, grid, ticks))
    if solution is not None:
        assert sum(grid.ticks(edge.time) for edge in solution.edges) == solution.ticks
        assert sum(edge.importance for edge in solution.edges) == pytest.approx(solution.importance, abs=1e-9)


def check(solution: Any, expected: tuple[Fraction, int] | None) -> None:
    if expected is None:
        assert solution is None
        return
    assert solution is not None
    assert solution.importance == pytest.approx(float(expected[0]), abs=1e-9)
    assert solution.ticks == expected[1]


@settings(max_examples=50, deadline=None)
@given(edges(3, nested=False))
def test_frontier_points_are_strictly_better_the_dearer_they_are(path: Path) -> None:
    points = solve(path, Grid(10), 60).points
    assert all(a.ticks < b.ticks and a.importance < b.importance for a, b in itertools.pairwise(points))


def test_rounding_up_never_exceeds_the_budget() -> None:
    grid = Grid(10)
    for ticks in range(70):
        solution = solve(oracle_path(), grid, ticks).at(ticks)
        assert solution is None or solution.time <= ticks / 10 + 1e-12


def test_chain_that_cannot_be_crossed_has_no_solution() -> None:
    frontier = solve(Path(2, (Edge(0, 1, 0.0, 1.0),)), Grid(1), 5)
    assert frontier.at(5) is None
    assert frontier.points == ()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Edge(2, 2, 1.0, 0.0), "forward"),
        (lambda: Edge(0, 1, -1.0, 0.0), "time must be >= 0"),
        (lambda: Path(1, (Edge(0, 2, 1.0, 0.0),)), "beyond"),
        (lambda: solve(Path(1, ()), Grid(1), -1), "budget is >= 0"),
        (lambda: solve(Path(1, ()), Grid(1), 3).at(4), "solved for 0 to 3"),
    ],
)
def test_refuses(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
