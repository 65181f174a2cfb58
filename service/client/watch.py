"""Follows a job, across lost connections and server restarts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc

from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1.optimization_job_pb2 import JobProgress, OptimizationJob
from service.client.channel import pause_after
from service.client.errors import ShoalError, code_of, from_rpc
from service.client.silence import SilenceGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub

_FINISHED: Final = frozenset(
    {
        OptimizationJob.STATE_SUCCEEDED,
        OptimizationJob.STATE_FAILED,
        OptimizationJob.STATE_CANCELLED,
        OptimizationJob.STATE_EXPIRED,
    }
)
SILENCE: Final = 45.0
"""Seconds; a server speaks on a watch at least every 15."""

# A server that is stopped ends its streams with CANCELLED, one that is killed with UNAVAILABLE.
_RECONNECT: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True)
class JobSnapshot:
    """The whole job, at the start of a watch and at each change of its state.

    Attributes:
        sequence: Number of the last event that it includes.
        time: When that was.
        job: The job.
    """

    sequence: int
    time: datetime
    job: OptimizationJob


@dataclass(frozen=True)
class JobAdvanced:
    """Work went on.

    Attributes:
        sequence: Number of the event.
        time: When it happened.
        progress: Phase, fraction, message, metrics, estimate of the time left.
    """

    sequence: int
    time: datetime
    progress: JobProgress


JobEvent = JobSnapshot | JobAdvanced


@dataclass(frozen=True)
class Watch:
    """What to follow, and how patiently.

    Attributes:
        name: `optimizationJobs/{id}`.
        resume_after: Sequence of the last event seen; 0 for all.
        patience: Seconds without any connection after which to give up.
        on_disconnect: Called each time that the connection is lost, with the reason.
    """

    name: str
    resume_after: int
    patience: float
    on_disconnect: Callable[[ShoalError], None]


def is_finished(job: OptimizationJob) -> bool:
    """Says whether the job is in a final state."""
    return job.state in _FINISHED


def follow(stub: ModelOptimizerStub, watch: Watch, address: str) -> Iterator[JobEvent]:
    """Yields a job's events in order until its final snapshot; reconnects after the last event seen.

    Leaving the iterator does not cancel the job.

    Raises:
        ShoalError: No such job, or no connection for `watch.patience` seconds.
    """
    last, failures, lost_at = watch.resume_after, 0, time.monotonic()
    while True:
        if failures:
            time.sleep(pause_after(failures))
        request = pb.WatchOptimizationJobRequest(name=watch.name, resume_after=last)
        # Waiting for the connection inside the call makes gRPC notice at once that the server is back.
        call = stub.WatchOptimizationJob(request, wait_for_ready=failures > 0)
        finished = False
        left = max(0.1, lost_at + watch.patience - time.monotonic()) if failures else SILENCE
        with SilenceGuard(call, left) as guard:
            try:
                for message in call:
                    guard.heard(SILENCE)
                    failures, lost_at = 0, time.monotonic()
                    event = _typed(message, last)
                    if event is not None:
                        last = max(last, event.sequence)
                        finished = isinstance(event, JobSnapshot) and is_finished(event.job)
                        yield event
            except grpc.RpcError as exc:
                error = from_rpc(exc, address)
                if code_of(exc) not in _RECONNECT or time.monotonic() >= lost_at + watch.patience:
                    raise error from exc
                if failures == 0:
                    watch.on_disconnect(error)
        if finished:
            return
        failures += 1  # a stream that ends with anything else was broken off by a server that stops


def _typed(message: pb.JobEvent, last: int) -> JobEvent | None:
    """Returns the event, or None for a heartbeat or a progress that was seen before."""
    moment = message.event_time.ToDatetime().astimezone()
    match message.WhichOneof("event"):
        case "snapshot":
            return JobSnapshot(message.sequence, moment, message.snapshot)
        case "progress" if message.sequence > last:
            return JobAdvanced(message.sequence, moment, message.progress)
    return None
