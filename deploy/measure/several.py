"""A measurement in several fresh processes, so that its interval covers what differs between them.

The time is split over the processes, which run one after the other and so need no more memory than one. Each loads the
files in an order of its own: the place of a file among those that are loaded shifts its time, by 0.3 % in the mean of
57 processes with two equal files. Every second order is the one before it backwards, so that of two files each is the
first as often as the other.

A process costs its start, loading and warm-up besides its share of the time: a second for most networks. Where they
take much longer, or the time is so short that the shares would be next to nothing, fewer processes are started, and
where even three would take too long, one has all the time; its interval then has a constant in it for what it cannot
see (`deploy.measure.spread.PLACEMENT`). That is so from the start for runtimes that may build an engine whenever they
load.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy.errors import MeasureError
from deploy.measure.process import Errand, ask_worker
from deploy.measure.settings import MIN_ROUNDS, TimingSettings
from deploy.measure.turn import wait_for_turn
from deploy.runtimes import find_runtime

_FEWEST = 3
_AT_LEAST_SECONDS = 60.0
_PER_LIMIT = 2.0
_LEAST_SECONDS = 0.01
_LEAST_SHARE = 0.2
"""Seconds of timing below which another process is more start than measurement."""

_LEAST_TIMEOUT = 1.0
_SEEDS = 2**63
_SHARES = ("steal_fraction", "others_fraction", "waiting_fraction")


def time_in_fresh_processes(
    paths: Sequence[Path], settings: TimingSettings, cancel: threading.Event | None = None
) -> dict[str, Any]:
    """Returns what the timing workers found, once no other process on this machine measures.

    Args:
        paths: Model files to time, interleaved in every process.
        settings: How; `processes` says in how many.
        cancel: Set it from another thread to stop; the process is killed within a fraction of a second.

    Returns:
        The worker's answer (`deploy.measure.worker`), rounds of all processes one after the other, and under
        `process_rounds` how many of them each process ran.

    Raises:
        ModelFileError: If a file cannot be loaded.
        RuntimeMissingError: If the runtime is not installed, or does not run on the device.
        DeviceMissingError: If the device is not there.
        MeasureError: If a process dies, hangs, or says nothing that can be read. One is enough: which one, and of
            what, is said, and nothing is made of the others.
        MeasureCancelledError: If `cancel` was set.
    """
    with wait_for_turn(cancel):
        return _merged(_time(paths, settings, cancel))


def loading_order(files: int, number: int, seed: int) -> list[int]:
    """Returns in which order a process loads the files: shuffled, and for odd numbers that of the one before backwards.

    Args:
        files: How many there are.
        number: Of the process, from 0.
        seed: Of the measurement.
    """
    order = list(range(files))
    # Text, because pairs of numbers as one number would repeat orders from seed to seed.
    random.Random(f"{seed} {number // 2}").shuffle(order)  # noqa: S311  an order is no secret
    return order[::-1] if number % 2 else order


def _time(paths: Sequence[Path], settings: TimingSettings, cancel: threading.Event | None) -> list[dict[str, Any]]:
    start = time.monotonic()

    def ask(number: int, count: int) -> dict[str, Any]:
        order = loading_order(len(paths), number, settings.seed)
        share = _left(_share(settings, count, number), time.monotonic() - start)
        name = "the timing process" if count == 1 else f"timing process {number + 1} of {count}"
        errand = Errand(name=name, limit_seconds=settings.max_seconds)
        answer = ask_worker([paths[index] for index in order], share, cancel, errand)
        places = {index: place for place, index in enumerate(order)}
        return {**answer, "files": [answer["files"][places[index]] for index in range(len(paths))]}

    wanted = _most(settings)
    first = ask(0, wanted)
    count = min(wanted, _affordable(settings, time.monotonic() - start))
    if count >= _FEWEST:
        return [first, *(ask(number, count) for number in range(1, count))]
    return [first] if wanted == 1 or _timed_seconds(first) >= settings.min_seconds else [ask(0, 1)]


def _most(settings: TimingSettings) -> int:
    """Returns how many processes may be tried."""
    if find_runtime(settings.runtime, settings.device).load_seconds > _allowance(settings):
        return 1
    return min(settings.processes, max(_FEWEST, int(settings.min_seconds / _LEAST_SHARE)))


def _allowance(settings: TimingSettings) -> float:
    """Returns how long all processes together may take."""
    return max(_AT_LEAST_SECONDS, _PER_LIMIT * settings.max_seconds)


def _affordable(settings: TimingSettings, seconds: float) -> int:
    """Returns how many processes there is time for, of which one took so many seconds."""
    return int(_allowance(settings) / seconds)


def _share(settings: TimingSettings, count: int, number: int) -> TimingSettings:
    """Returns the settings of one of `count` processes."""
    precision = settings.precision
    return replace(
        settings,
        min_seconds=settings.min_seconds / count,
        max_seconds=max(settings.max_seconds / count, _LEAST_SECONDS),
        min_samples=math.ceil(settings.min_samples / count),
        min_rounds=max(MIN_ROUNDS, math.ceil(settings.min_rounds / count)),
        precision=None if precision is None else min(1.0, precision * math.sqrt(count)),
        # The first process has brought the clock up, so that the others see it rise no more.
        warmup_seconds=settings.warmup_seconds / (2 if number else 1),
        processes=1,
        seed=(settings.seed + number) % _SEEDS,
    )


def _left(settings: TimingSettings, elapsed: float) -> TimingSettings:
    """Returns the settings of a process that starts so late, with what is left of the time for all of them.

    Raises:
        MeasureError: If nothing is left.
    """
    if settings.timeout_seconds is None:
        return settings
    left = settings.timeout_seconds - elapsed
    if left <= 0:
        msg = f"the timing processes gave no answer within {settings.timeout_seconds:.0f} s"
        raise MeasureError(msg)
    return replace(settings, timeout_seconds=max(_LEAST_TIMEOUT, left))


def _timed_seconds(answer: dict[str, Any]) -> float:
    return sum(sum(block) for file in answer["files"] for block in file["rounds"])


def _merged(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the answers of all processes as that of one."""
    files = zip(*(answer["files"] for answer in answers), strict=True)
    return {
        **answers[0],
        "files": [_merged_file(parts) for parts in files],
        "orders": [order for answer in answers for order in answer["orders"]],
        "complete": all(answer["complete"] for answer in answers),
        "conditions": _merged_conditions([answer["conditions"] for answer in answers]),
        "process_rounds": [len(answer["orders"]) for answer in answers],
    }


def _merged_file(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        **parts[0],
        "rounds": [block for part in parts for block in part["rounds"]],
        "preempted": sum(part["preempted"] for part in parts),
        # Trimming takes care of a few that were not.
        "stable": 2 * sum(part["stable"] for part in parts) > len(parts),
    }


def _merged_conditions(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the state before the first and after the last, and shares of the time in between that was measured."""
    spans = [part["after"]["monotonic_seconds"] - part["before"]["monotonic_seconds"] for part in parts]

    def share(name: str) -> Any:
        if any(part[name] is None for part in parts) or sum(spans) <= 0:
            return None
        return float(np.average([part[name] for part in parts], weights=spans))

    return {"before": parts[0]["before"], "after": parts[-1]["after"], **{name: share(name) for name in _SHARES}}
