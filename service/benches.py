"""Which device a job's files are timed and run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from deploy.bench import Bench, LocalBench
from deploy.bench.remote import RemoteBench
from deploy.errors import MeasureError
from service.exchange import Exchange
from service.phases import Phases
from service.work import WorkOrder

Announce = Callable[[str], None]
"""Tells the server that a question for a device lies in the job's folder, by its key."""

_SCRATCH: Final = "timing"


def nobody(_key: str) -> None:
    """Announces to nobody: for jobs without a server."""
    raise MeasureError("a device that an agent speaks for can be asked through a server only")


def bench_of(order: WorkOrder, announce: Announce, phases: Phases) -> Bench:
    """Returns the device that a job asks for, with its runtime.

    Args:
        order: The job.
        announce: How the server learns of questions for devices far away.
        phases: Whose clock stands still while the job waits for such a device.
    """
    target = order.spec.target
    if target.agent is None:
        return LocalBench(target.runtime, target.local_device)
    ask = Exchange(order.folder, announce, phases.exclude)
    return RemoteBench(target.runtime, target.local_device, ask, order.folder / _SCRATCH)
