from __future__ import annotations

import gc
import random

import pytest

from deploy.errors import MeasureError
from deploy.measure.protocol import _system_switches, interleave
from deploy.measure.settings import MIN_ROUNDS, TimingSettings


class Machine:
    """A clock that only models advance."""

    def __init__(self) -> None:
        self.now = 0
        self.switched = 0
        self.ran: list[str] = []

    def clock(self) -> int:
        return self.now

    def switches(self) -> int:
        return self.switched

    def model(self, name: str, *durations: int) -> object:
        """Returns a run that takes these nanoseconds in turn, the last one for ever."""
        left = list(durations)

        def run() -> None:
            self.ran.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


MILLISECOND = 1_000_000


def settings(**changes: float) -> TimingSettings:
    values = {"min_seconds": 0.3, "max_seconds": 10.0, "min_samples": 10, "warmup_seconds": 0.5} | changes
    return TimingSettings(**values)  # type: ignore[arg-type]


def test_every_counted_run_is_reported_in_seconds() -> None:
    machine = Machine()
    runs = [machine.model("a", MILLISECOND), machine.model("b", 3 * MILLISECOND)]
    result = interleave(runs, settings(), machine.clock, machine.switches)
    for turns, seconds in zip(result.turns, (0.001, 0.003), strict=True):
        assert {value for block in turns.rounds for value in block} == {seconds}
        assert turns.stable
    assert result.complete


def test_every_round_holds_every_model_in_an_order_that_changes() -> None:
    machine = Machine()
    longer = settings(min_seconds=2.0)
    result = interleave([machine.model(name, MILLISECOND) for name in "abc"], longer, machine.clock, machine.switches)
    assert all(sorted(order) == [0, 1, 2] for order in result.orders)
    assert len(set(result.orders)) == 6
    assert {len(turns.rounds) for turns in result.turns} == {len(result.orders)}


def test_turns_run_in_the_order_that_is_reported() -> None:
    machine = Machine()
    result = interleave(
        [machine.model(name, MILLISECOND) for name in "ab"], settings(), machine.clock, machine.switches
    )
    sequence = [name for index, name in enumerate(machine.ran) if index == 0 or machine.ran[index - 1] != name]
    wanted = [{0: "a", 1: "b"}[index] for order in result.orders for index in order]
    turns = [name for index, name in enumerate(wanted) if index == 0 or wanted[index - 1] != name]
    assert sequence[-len(turns) + 1 :] == turns[1:]


def test_the_order_depends_on_the_seed_only() -> None:
    orders = []
    for seed in (1, 1, 2):
        machine = Machine()
        runs = [machine.model(name, MILLISECOND) for name in "ab"]
        orders.append(interleave(runs, settings(seed=seed), machine.clock, machine.switches).orders)
    assert orders[0] == orders[1] != orders[2]


def test_blocks_are_as_long_as_asked_and_start_with_runs_that_do_not_count() -> None:
    machine = Machine()
    result = interleave(
        [machine.model("a", MILLISECOND)], settings(block_seconds=0.02), machine.clock, machine.switches
    )
    assert {len(block) for block in result.turns[0].rounds} == {20}
    # Warm-up: one run, then two blocks of 25 ms that agree with what came before.
    assert len(machine.ran) == 1 + 2 * 25 + len(result.orders) * 22


def test_a_model_slower_than_a_block_runs_once_per_round() -> None:
    machine = Machine()
    result = interleave(
        [machine.model("a", 100 * MILLISECOND)], settings(warmup_seconds=0), machine.clock, machine.switches
    )
    assert {len(block) for block in result.turns[0].rounds} == {1}
    assert len(machine.ran) == 1 + len(result.orders)


def test_warm_up_lasts_until_times_are_stable() -> None:
    machine = Machine()
    falling = [MILLISECOND * (200 - index) // 100 for index in range(100)]
    result = interleave([machine.model("a", *falling, MILLISECOND)], settings(), machine.clock, machine.switches)
    assert max(max(block) for block in result.turns[0].rounds) <= 0.00105


def test_a_model_that_never_settles_is_marked() -> None:
    machine = Machine()
    rising = [round(MILLISECOND * 1.05**index) for index in range(90)]
    result = interleave([machine.model("a", *rising)], settings(), machine.clock, machine.switches)
    assert not result.turns[0].stable


def test_measuring_stops_at_the_minimum_and_not_before() -> None:
    machine = Machine()
    result = interleave([machine.model("a", MILLISECOND)], settings(min_seconds=2.0), machine.clock, machine.switches)
    total = sum(sum(block) for block in result.turns[0].rounds)
    # The settling runs, two of twelve in each turn, take time too.
    assert 1.6 < total < 1.75


def test_measuring_stops_at_the_maximum_and_says_so() -> None:
    machine = Machine()
    result = interleave([machine.model("a", MILLISECOND)], settings(min_samples=10**6), machine.clock, machine.switches)
    assert not result.complete
    assert 8 < sum(sum(block) for block in result.turns[0].rounds) < 10.1


def test_there_are_enough_rounds_for_an_interval_even_if_it_takes_longer() -> None:
    machine = Machine()
    slow = settings(max_seconds=1.0, min_seconds=0.5, min_samples=1, warmup_seconds=0)
    result = interleave([machine.model("a", 500 * MILLISECOND)], slow, machine.clock, machine.switches)
    assert len(result.orders) == MIN_ROUNDS


def test_a_hopelessly_slow_model_is_refused_at_once() -> None:
    machine = Machine()
    slow = settings(max_seconds=1.0, warmup_seconds=0)
    with pytest.raises(MeasureError, match=r"take 9\.00 s per round.*limit of 1 s: raise 'max_seconds'"):
        interleave([machine.model("a", 9000 * MILLISECOND)], slow, machine.clock, machine.switches)
    assert machine.ran == ["a"]


def test_garbage_collection_is_off_meanwhile_and_on_again() -> None:
    machine, seen = Machine(), set()
    run = machine.model("a", MILLISECOND)

    def watched() -> None:
        seen.add(gc.isenabled())
        run()  # type: ignore[operator]

    interleave([watched], settings(), machine.clock, machine.switches)
    assert seen == {False}
    assert gc.isenabled()


def test_runs_that_were_preempted_and_those_after_them_do_not_count() -> None:
    machine = Machine()
    ran = 0

    def run() -> None:
        nonlocal ran
        ran += 1
        machine.now += MILLISECOND
        if ran % 5 == 0:
            machine.switched += 1
            machine.now += 8 * MILLISECOND
        elif ran % 5 == 1:
            machine.now += MILLISECOND

    (turns,) = interleave([run], settings(), machine.clock, machine.switches).turns
    assert {value for block in turns.rounds for value in block} == {0.001}
    counted = sum(map(len, turns.rounds))
    assert turns.preempted == pytest.approx(counted * 2 / 3, rel=0.1)


def test_nothing_is_left_out_of_any_model_where_one_is_always_preempted() -> None:
    machine = Machine()
    steady = machine.model("steady", MILLISECOND)

    def unlucky() -> None:
        machine.now += 20 * MILLISECOND
        machine.switched += 1

    calls = 0

    def sometimes() -> None:
        nonlocal calls
        calls += 1
        steady()  # type: ignore[operator]
        if calls % 7 == 0:
            machine.switched += 1

    result = interleave([unlucky, sometimes], settings(), machine.clock, machine.switches)
    assert [turns.preempted for turns in result.turns] == [0, 0]
    assert len({len(turns.rounds) for turns in result.turns}) == 1


def test_rounds_stay_paired_when_some_lose_all_their_runs() -> None:
    machine = Machine()

    def model(period: int) -> object:
        calls = 0

        def run() -> None:
            nonlocal calls
            calls += 1
            machine.now += 10 * MILLISECOND
            machine.switched += calls % period == 0

        return run

    result = interleave([model(5), model(7)], settings(), machine.clock, machine.switches)
    assert [len(turns.rounds) for turns in result.turns] == [len(result.orders)] * 2
    for turns in result.turns:
        assert turns.preempted == turns.rounds.count(()) > 0


def test_measuring_goes_on_until_the_ratio_is_known_well_enough() -> None:
    def wide(precision: float | None) -> int:
        machine = Machine()
        noise = random.Random(0)
        jitter = [int(MILLISECOND * noise.uniform(0.5, 1.5)) for _ in range(20_000)]
        runs = [machine.model("a", *jitter[::2]), machine.model("b", *jitter[1::2])]
        changed = settings(precision=precision)  # type: ignore[arg-type]
        return len(interleave(runs, changed, machine.clock, machine.switches).orders)

    assert wide(None) == wide(0.5)
    assert wide(0.02) > 3 * wide(None)


def test_the_systems_own_count_of_switches_is_used() -> None:
    first = _system_switches()()
    assert first >= 0
    assert _system_switches()() >= first
