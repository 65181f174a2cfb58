"""Which device a job's files are timed and run on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from compressors.memory import Memory
from deploy.bench import Bench, LocalBench
from deploy.bench.remote import RemoteBench
from deploy.errors import MeasureError
from deploy.table import LatencyTable
from service.devices.exchange import Exchange
from service.pipeline.phases import Phases
from service.pipeline.shipping import table_settings
from service.worker.messages import WorkOrder

Announce = Callable[[str], None]
"""Tells the server that a question for a device lies in the job's folder, by its key."""

_SCRATCH: Final = "timing"

ANCHOR: Final = "anchor"
"""Where a job's memory keeps the scale of its latencies (`deploy.table.LatencyTable.anchor`)."""


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
    target, batch = order.spec.target, order.spec.budget.batch
    if target.agent is None:
        return LocalBench(target.runtime, target.local_device, batch)
    ask = Exchange(order.folder, announce, phases.exclude)
    return RemoteBench(target.runtime, target.local_device, ask, order.folder / _SCRATCH, batch)


def latency_table(
    order: WorkOrder, memory: Memory, bench: Bench, precision: str = "float32", anchor: float | None = None
) -> LatencyTable:
    """Returns the device as planning sees it.

    Args:
        order: The job.
        memory: Of the job: the scale of an earlier attempt is in there.
        bench: The device.
        precision: What networks and operators are written in.
        anchor: The scale, where it is to be that of another table.
    """
    scratch = order.folder / _SCRATCH
    scratch.mkdir(exist_ok=True)
    known = memory.recall(ANCHOR)
    scale = known if anchor is None and isinstance(known, float) else anchor
    settings = table_settings(order.spec, precision)
    return LatencyTable(settings, order.cache_folder / "latency.sqlite", scratch, anchor=scale, bench=bench)
