"""The machine as a place to measure on: memory, cores, clocks, and how still it is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from statistics import median
from typing import Final

from service.doctor.finding import Finding, Level

_GIB: Final = 1 << 30
_LEAST_MEMORY: Final = 4 * _GIB
_COARSEST: Final = 1e-6
_SPINS: Final = 200
_SPIN: Final = 20_000
_NOISY: Final = 1.5


def look_at_machine() -> Iterator[Finding]:
    """Yields processor, cores, governor and memory."""
    from deploy.machine import describe_device, read_clock_state

    device, state = describe_device(), read_clock_state()
    cores = f"{device.model}, {device.cores} logical processors, {device.architecture}"
    if device.cores < 2:
        yield Finding("machine", "cores", Level.WARN, cores, "whatever else runs disturbs what is measured")
    else:
        yield Finding("machine", "cores", Level.OK, cores)
    yield _governor(state.governor)
    if device.memory_bytes is None:
        yield Finding("machine", "memory", Level.OK, "the system does not tell")
    elif device.memory_bytes < _LEAST_MEMORY:
        small = f"{device.memory_bytes / _GIB:.1f} GiB"
        yield Finding("machine", "memory", Level.WARN, small, "jobs may be killed", "use small models, one worker")
    else:
        yield Finding("machine", "memory", Level.OK, f"{device.memory_bytes / _GIB:.1f} GiB")


def _governor(governor: str | None) -> Finding:
    if governor is None:
        return Finding("machine", "governor", Level.OK, "the system does not tell", "usual in virtual machines")
    if governor == "performance":
        return Finding("machine", "governor", Level.OK, governor)
    meaning = "clocks follow the load, and latencies with them"
    return Finding("machine", "governor", Level.WARN, governor, meaning, "set it to `performance` while measuring")


def look_at_clock() -> Iterator[Finding]:
    """Yields how fine the clock is that measurements use, and how evenly this machine computes."""
    resolution = min(after - before for before, after in _ticks())
    level = Level.OK if resolution <= _COARSEST else Level.WARN
    meaning = "" if level is Level.OK else "operators of microseconds cannot be timed"
    yield Finding("clock", "resolution", level, f"{resolution * 1e9:.0f} ns between readings", meaning)
    times = sorted(_spin() for _ in range(_SPINS))
    ratio = times[int(0.9 * _SPINS)] / median(times)
    found = f"the same work takes {ratio:.2f} times the median in one run of ten"
    if ratio > _NOISY:
        meaning = "something else runs here, or clocks change; measured intervals will be wide"
        yield Finding("clock", "noise", Level.WARN, found, meaning, "stop other programs; fix the clock")
    else:
        yield Finding("clock", "noise", Level.OK, found)


def _ticks() -> Iterator[tuple[float, float]]:
    for _ in range(100):
        before = after = time.perf_counter()
        while after == before:
            after = time.perf_counter()
        yield before, after


def _spin() -> float:
    began = time.perf_counter()
    sum(range(_SPIN))
    return time.perf_counter() - began


def look_at_turn() -> Iterator[Finding]:
    """Yields whether this machine's measurements can keep out of each other's way."""
    from deploy.measure.turn import lock_file

    try:
        import fcntl
    except ImportError:
        meaning = "measurements at the same time may disturb each other"
        yield Finding("timing", "lock", Level.WARN, "this system has no such locks", meaning)
        return
    path = lock_file()
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        found = f"{path} cannot be opened: {exc.strerror}"
        yield Finding("timing", "lock", Level.FAIL, found, "nothing can be measured", f"remove {path}")
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Finding("timing", "lock", Level.OK, "free")
    except BlockingIOError:
        yield Finding("timing", "lock", Level.OK, "held: something is being measured now", "others wait for their turn")
    finally:
        os.close(handle)
