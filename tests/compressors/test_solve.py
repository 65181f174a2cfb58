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
    # This budget is a documented tie on importance and ticks: two paths are equally right.
    if (case["mode"], case["T0"]) != ("ceil", 3.5):
        assert found == case["path"]


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
