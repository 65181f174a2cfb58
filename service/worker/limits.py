"""What one worker and its children may take of the machine together: memory, and processes.

The kernel has no such limit for a group of processes without control groups, which take an administrator to hand over;
limits on address space break torch and CUDA. So the server looks, a few times a second, and ends what takes too much.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from service.faults import WORKER_MEMORY, WORKER_PROCESSES, Fault
from service.settings import MOST_WORKERS, ServerSettings

_PROC: Final = Path("/proc")
_CGROUP_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_CGROUP_PROCESSORS: Final = Path("/sys/fs/cgroup/cpu.max")
_LOOK_SECONDS: Final = 0.25
_MOST: Final = 0.9
"""Share of the machine's memory that all workers together may take unless the operator says otherwise."""
_KIB: Final = 1 << 10
_GIB: Final = 1 << 30
_FIRST_VICTIM: Final = "500"


@dataclass(frozen=True)
class Excess:
    """What a worker took too much of; the message is fit for the user."""

    fault: Fault
    message: str


@dataclass(frozen=True)
class Limits:
    """What a worker may take with its children.

    Attributes:
        memory_bytes: Resident memory, without mapped files.
        processes: How many.
    """

    memory_bytes: int
    processes: int


def limits_of(settings: ServerSettings) -> Limits:
    """Returns what each worker may take."""
    share = int(_MOST * machine_memory() / settings.workers)
    return Limits(settings.worker_memory_bytes or share, settings.worker_processes)


def side_by_side(processors: float) -> int:
    """Returns how many jobs that ask for so many processors each this machine or container has room for, 1 at least."""
    found = float(len(os.sched_getaffinity(0)))
    with suppress(OSError, ValueError):
        quota, period = _CGROUP_PROCESSORS.read_text().split()
        found = min(found, float(quota) / float(period))
    return min(max(1, int(found / (processors or 1))), MOST_WORKERS)


def machine_memory() -> int:
    """Returns how many bytes of memory this machine has, or this container may use."""
    found = [int(psutil.virtual_memory().total)]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):
            found.append(int(path.read_text()))
    return min(found)


async def watch_excess(pid: int, limits: Limits) -> Excess:
    """Returns once a process and its descendants take too much; never before."""
    while True:
        if (found := find_excess(pid, limits)) is not None:
            return found
        await asyncio.sleep(_LOOK_SECONDS)


def find_excess(pid: int, limits: Limits) -> Excess | None:
    """Returns what a process and its descendants take too much of, None if nothing."""
    memory = 0
    for count, one in enumerate(family(pid), start=1):
        memory += _memory(one)
        if count > limits.processes:
            asked = f"it started more than {limits.processes} processes (worker_processes)"
            return Excess(WORKER_PROCESSES, asked)
    if memory <= limits.memory_bytes:
        return None
    much = f"it needed more than the {limits.memory_bytes / _GIB:.2f} GiB of memory that a job may take here"
    return Excess(WORKER_MEMORY, f"{much}; use a smaller batch, or ask the operator for more (worker_memory_bytes)")


def family(pid: int) -> Iterator[int]:
    """Yields a process and all its descendants, as the system tells them now."""
    waiting, seen = [pid], {pid}
    while waiting:
        one = waiting.pop()
        yield one
        found = [child for child in _children(one) if child not in seen]
        seen.update(found)
        waiting += found


def sacrifice(pid: int) -> None:
    """Has the system end this process rather than its server when memory runs out."""
    with suppress(OSError):
        (_PROC / str(pid) / "oom_score_adj").write_text(_FIRST_VICTIM)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def _memory(pid: int) -> int:
    """Returns resident bytes that are this process's: anonymous ones and shared memory, not mapped files."""
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    return sum(int(told.get(name, "0").split()[0]) * _KIB for name in ("RssAnon", "RssShmem"))
