"""What workers are told to do, and who carries their questions to devices far away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from service.devices.desk import Desk, JobDesk
from service.jobs.job import Job
from service.settings import ServerSettings
from service.spec import JobSpec
from service.worker.messages import WorkOrder


def job_order(settings: ServerSettings, folder: Path, job: Job, traceparent: str) -> WorkOrder:
    """Returns the order to do a job in a folder."""
    return WorkOrder(
        job=job.name,
        task="optimize",
        spec=job.spec,
        display_name=job.display_name,
        folder=folder,
        cache_folder=settings.state_dir / "cache",
        data_roots=settings.data_roots,
        deadline_seconds=job.spec.time_limit.total_seconds(),
        traceparent=traceparent,
        log_format=settings.log_format,
    )


def dry_run_order(
    settings: ServerSettings, folder: Path, spec: JobSpec, skip_floor: bool, traceparent: str
) -> WorkOrder:
    """Returns the order for a dry run in a folder, which names it."""
    return WorkOrder(
        job=f"analyses/{folder.name}",
        task="analyze",
        spec=spec,
        skip_floor=skip_floor,
        folder=folder,
        cache_folder=settings.state_dir / "cache",
        data_roots=settings.data_roots,
        deadline_seconds=settings.analysis_seconds,
        traceparent=traceparent,
        log_format=settings.log_format,
    )


def open_desk(desk: Desk, order: WorkOrder, tell: Callable[[str], None]) -> JobDesk | None:
    """Returns what carries a worker's questions to its device; None where that is this machine."""
    agent = order.spec.target.agent
    return None if agent is None else desk.open(order.job, agent, order.folder, tell)
