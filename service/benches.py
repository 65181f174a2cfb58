"""Which device a job's files are timed and run on."""

from __future__ import annotations

from deploy.bench import Bench, LocalBench
from service.phases import Phases
from service.work import WorkOrder


def bench_of(order: WorkOrder, phases: Phases) -> Bench:  # noqa: ARG001
    """Returns the device that a job asks for, with its runtime.

    Args:
        order: The job.
        phases: Whose clock stands still while the job waits for its device.
    """
    return LocalBench(order.spec.target.runtime)
