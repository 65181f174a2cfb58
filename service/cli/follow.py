"""Watches a job to its end and keeps a display up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.cli import progress as picture
from service.client import JobAdvanced, is_finished

if TYPE_CHECKING:
    from datetime import datetime

    from protos.shoal.v1 import optimization_job_pb2 as job_pb
    from service.cli.display import Display
    from service.client import Client, ShoalError


def follow(client: Client, name: str, display: Display) -> job_pb.OptimizationJob:
    """Shows a job's progress until it is finished and returns it.

    Args:
        client: The server.
        name: `optimizationJobs/{id}`.
        display: Where to show it.
    """

    def lost(error: ShoalError) -> None:
        display.say(f"connection lost, trying again: {error.message}")

    job = None
    for event in client.watch(name, on_disconnect=lost):
        if isinstance(event, JobAdvanced):
            display.advance(report(event.progress, event.time))
            continue
        job = event.job
        if is_finished(job):
            display.finish(event.time, succeeded=job.state == type(job).STATE_SUCCEEDED)
    return client.get(name) if job is None else job


def report(message: job_pb.JobProgress, time: datetime) -> picture.Report:
    """Returns the news in a progress message of the API."""
    left = message.time_left.ToTimedelta().total_seconds() if message.HasField("time_left") else None
    return picture.Report(
        phase=message.phase,
        time=time,
        message=message.message,
        fraction=message.fraction,
        metrics=dict(message.metrics),
        seconds_left=left,
    )
