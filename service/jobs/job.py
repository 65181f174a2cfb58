"""A job and its events, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.access.principal import LOCAL_NAME
from service.jobs.states import FINAL, State
from service.spec import JobSpec

JOB_PREFIX = "optimizationJobs/"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Progress(_Frozen):
    """How far a job is; `JobProgress` in the proto. `time_left` is None while unknown."""

    phase: str
    fraction: float
    message: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    time_left: timedelta | None = None


class Failure(_Frozen):
    """Why a job has no result; `JobError` in the proto."""

    reason: str
    message: str
    blame: str


class Job(_Frozen):
    """A job as it was at one moment.

    Attributes:
        id: Last part of its resource name.
        principal: Whose it is.
        result: An `OptimizationResult` in protobuf's JSON form; set when SUCCEEDED.
        failure: Set when FAILED or EXPIRED.
        attempts: How often a worker was started for it.
        last_sequence: Number of its newest event.
    """

    id: str
    principal: str = LOCAL_NAME
    spec: JobSpec
    display_name: str
    state: State
    progress: Progress | None = None
    result: dict[str, Any] | None = None
    failure: Failure | None = None
    create_time: datetime
    start_time: datetime | None = None
    end_time: datetime | None = None
    attempts: int = 0
    last_sequence: int = 0

    @property
    def name(self) -> str:
        """Resource name."""
        return JOB_PREFIX + self.id

    @property
    def finished(self) -> bool:
        """Whether its state is final."""
        return self.state in FINAL


@dataclass(frozen=True)
class NewJob:
    """What a caller hands in.

    Attributes:
        spec: What is wanted.
        display_name: The caller's own text.
        id: The caller's choice, or empty.
        request_id: A UUID4 that makes creation repeatable, or empty.
        principal: Whose it is.
        needs: Names of stored files that must be there when it is stored.
    """

    spec: JobSpec
    display_name: str = ""
    id: str = ""
    request_id: str = ""
    principal: str = LOCAL_NAME
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something that happened to a job: a change of state (`body` is the job then), or progress."""

    sequence: int
    time: datetime
    body: Job | Progress

    @property
    def last(self) -> bool:
        """Whether nothing can come after it."""
        return isinstance(self.body, Job) and self.body.finished
