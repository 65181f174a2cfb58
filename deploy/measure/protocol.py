"""The timing protocol: warm up, then interleave in rounds of random order.

Two models timed one after the other are timed on two different machines: clocks, temperature and neighbours drift over
seconds. Interleaving in short turns exposes both to the same drift, so that their ratio is sound where neither of the
absolute times is. Turns are not single runs, because a model that has just been displaced from the caches by another is
not what a user runs: each turn starts with runs that are not counted.

A run during which the system gave the processor to another program says nothing about the model either. The system
counts these events, so such runs are known, and they are left out together with the run after each, which finds the
caches filled by somebody else. They are kept, for all models alike, where too few others would remain.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from deploy.errors import MeasureError
from deploy.measure.distribution import bootstrap_ratio
from deploy.measure.settings import MIN_ROUNDS, TimingSettings

Run = Callable[[], object]
Counter = Callable[[], int]

_STABLE = 0.05
_MAX_BLOCK = 2000
_SETTLING = 2
_WARMUP_BLOCKS = 20
_OVERTIME = 4.0
_KEPT_SHARE = 0.2
_LOOK_AGAIN = 1.3


@dataclass(frozen=True)
class Turns:
    """One file's times.

    Attributes:
        rounds: Seconds of every run that counts, by round; empty where none does.
        preempted: Runs that were left out, because the system gave the processor to another program.
        stable: Whether the warm-up ended because the times were stable, and not because its time was over.
    """

    rounds: tuple[tuple[float, ...], ...]
    preempted: int
    stable: bool


@dataclass(frozen=True)
class Interleaved:
    """What `interleave` returns.

    Attributes:
        turns: One per file, in the order given; all with the same rounds.
        orders: Indices of the files in the order they ran, by round, of every round that was run.
        complete: Whether everything that the settings ask for was reached before `max_seconds` were over.
    """

    turns: tuple[Turns, ...]
    orders: tuple[tuple[int, ...], ...]
    complete: bool


@dataclass(frozen=True)
class _Block:
    """One turn: seconds of its runs, and which of them count."""

    seconds: tuple[float, ...]
    counts: tuple[bool, ...]

    @property
    def counted(self) -> tuple[float, ...]:
        return tuple(value for value, counts in zip(self.seconds, self.counts, strict=True) if counts)


@dataclass
class _Record:
    """Everything that was run so far: blocks by round and file."""

    rounds: list[list[_Block]] = field(default_factory=list)

    def kept(self) -> list[list[tuple[float, ...]]]:
        """Returns the runs that count, by file and round; all of them where too few of any file would."""
        files = [list(blocks) for blocks in zip(*self.rounds, strict=True)]
        counted = [[block.counted for block in blocks] for blocks in files]
        for blocks, some in zip(files, counted, strict=True):
            ran = sum(len(block.seconds) for block in blocks)
            if _paired(counted[0], some) < MIN_ROUNDS or sum(map(len, some)) < _KEPT_SHARE * ran:
                return [[block.seconds for block in blocks] for blocks in files]
        return counted


def interleave(
    runs: Sequence[Run],
    settings: TimingSettings,
    clock: Counter = time.perf_counter_ns,
    switches: Counter | None = None,
    affordable_seconds: float | None = None,
) -> Interleaved:
    """Returns the times of all `runs`, taken in rounds of random order with garbage collection off.

    Args:
        runs: Functions that run a model once and return when it is done.
        settings: How long, how often.
        clock: Nanoseconds since some moment.
        switches: How often the system has taken the processor away from this process; its own count by default.
        affordable_seconds: What the smallest number of rounds is held against; the settings' `max_seconds` by default.

    Raises:
        MeasureError: If a run is so slow that the smallest number of rounds would far exceed that.
    """
    timer = _Timer(clock, switches or _system_switches())
    with _no_garbage_collection():
        warmed = [timer.warm_up(run, settings) for run in runs]
        _check_affordable([typical for typical, _ in warmed], affordable_seconds or settings.max_seconds)
        lengths = [_block_length(typical, settings.block_seconds) for typical, _ in warmed]
        record, orders, complete = _run_rounds(runs, lengths, settings, timer)
    turns = []
    for index, rounds in enumerate(record.kept()):
        ran = sum(len(blocks[index].seconds) for blocks in record.rounds)
        turns.append(Turns(tuple(rounds), ran - sum(map(len, rounds)), warmed[index][1]))
    return Interleaved(tuple(turns), tuple(orders), complete)


@dataclass(frozen=True)
class _Timer:
    """Runs models and reads the clock around them, and nothing else in between."""

    clock: Counter
    switches: Counter

    def block(self, run: Run, repetitions: int, settling: int = 0) -> _Block:
        """Runs `settling` times without counting, then `repetitions` times."""
        total = settling + repetitions
        clock, switches = self.clock, self.switches
        nanoseconds, switched = [0] * total, [0] * (total + 1)
        switched[0] = switches()
        for index in range(total):
            start = clock()
            run()
            nanoseconds[index] = clock() - start
            switched[index + 1] = switches()
        counts = [switched[max(0, index - 1)] == switched[index + 1] for index in range(settling, total)]
        return _Block(tuple(value * 1e-9 for value in nanoseconds[settling:]), tuple(counts))

    def warm_up(self, run: Run, settings: TimingSettings) -> tuple[float, bool]:
        """Runs until three successive medians agree; returns the typical seconds of a run and whether they did."""
        start = self.clock()
        typical = self.block(run, 1).seconds[0]
        agreed = 0
        # Clocks rise over tenths of a second: blocks as short as the turns would see equal times on the way.
        length = max(settings.block_seconds, settings.warmup_seconds / _WARMUP_BLOCKS)
        while (self.clock() - start) * 1e-9 < settings.warmup_seconds:
            block = self.block(run, max(3, _block_length(typical, length)))
            median = statistics.median(block.counted or block.seconds)
            agreed = agreed + 1 if abs(median - typical) <= _STABLE * typical else 0
            typical = median
            if agreed == 2:
                return typical, True
        return typical, settings.warmup_seconds == 0


def _run_rounds(
    runs: Sequence[Run], lengths: Sequence[int], settings: TimingSettings, timer: _Timer
) -> tuple[_Record, list[tuple[int, ...]], bool]:
    shuffle = random.Random(settings.seed).shuffle  # noqa: S311  an order of turns is no secret
    record, orders = _Record(), []
    start, look = timer.clock(), settings.min_seconds
    while True:
        order = list(range(len(runs)))
        shuffle(order)
        # A block of one is a slow model: it fills the caches by itself, and settling runs would double the cost.
        blocks = {
            index: timer.block(runs[index], lengths[index], min(_SETTLING, lengths[index] - 1)) for index in order
        }
        record.rounds.append([blocks[index] for index in range(len(runs))])
        orders.append(tuple(order))
        elapsed = (timer.clock() - start) * 1e-9
        if elapsed >= look and _is_complete(record, settings):
            return record, orders, True
        if elapsed >= settings.max_seconds and len(orders) >= MIN_ROUNDS:
            return record, orders, False
        if elapsed >= look:
            # Looking takes time and fills the caches with other things, so it is done at growing distances.
            look = max(elapsed, look) * _LOOK_AGAIN


def _is_complete(record: _Record, settings: TimingSettings) -> bool:
    kept = record.kept()
    for rounds in kept:
        if _paired(kept[0], rounds) < settings.min_rounds or sum(map(len, rounds)) < settings.min_samples:
            return False
    return settings.precision is None or all(
        _half_width(kept[0], rounds, settings.percentile) <= settings.precision for rounds in kept[1:]
    )


def _paired(first: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> int:
    """Returns in how many rounds both have runs that count."""
    return sum(bool(mine) and bool(theirs) for mine, theirs in zip(first, other, strict=True))


def _half_width(first: Sequence[Sequence[float]], other: Sequence[Sequence[float]], percentile: str) -> float:
    interval = bootstrap_ratio(first, other, percentile)
    return (interval.high - interval.low) / (2 * interval.value)


def _block_length(typical: float, seconds: float) -> int:
    return max(1, min(_MAX_BLOCK, round(seconds / max(typical, 1e-9))))


def _check_affordable(typical: Sequence[float], limit: float) -> None:
    needed = MIN_ROUNDS * sum(typical)
    if needed > _OVERTIME * limit:
        msg = (
            f"the models take {sum(typical):.2f} s per round, so {MIN_ROUNDS} rounds need {needed:.0f} s, "
            f"far over the limit of {limit:g} s: raise 'max_seconds' or lower the batch"
        )
        raise MeasureError(msg)


def _system_switches() -> Counter:
    """Returns the count of involuntary context switches of this process, all its threads together."""
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:
        return lambda: 0
    return lambda: getrusage(RUSAGE_SELF).ru_nivcsw


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
