"""What is counted. The server's parts tell a meter; what it makes of that is its own affair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from service.devices.agents import PREFIX
from service.faults import BY_REASON
from service.jobs.job import Job
from service.jobs.states import State
from service.pipeline.phases import SHARES

OTHER: Final = "other"
"""Stands for what is not one of few known values: labels must not come from outside."""


@dataclass(frozen=True)
class JobEnd:
    """How a job ended, in labels: each has few values.

    Attributes:
        outcome: `budget_met`, `budget_not_met`, `no_improvement`, `failed`, `cancelled` or `expired`.
        reason: Of a failure, e.g. `WORKER_DIED`; empty where there was none.
        strategy: E.g. `layerfit`.
        device_class: `local` or `agent`.
    """

    outcome: str
    reason: str
    strategy: str
    device_class: str


@dataclass(frozen=True)
class Call:
    """A call that was answered.

    Attributes:
        method: `shoal.v1.ModelOptimizer/GetOptimizationJob`.
        code: Name of the gRPC status code.
        seconds: From its arrival to its end.
        received: Bytes of its messages.
        sent: Bytes of its messages.
    """

    method: str
    code: str
    seconds: float
    received: int
    sent: int


@dataclass(frozen=True)
class Page:
    """A page that a browser was given.

    Attributes:
        route: The pattern of its address, `/jobs/{job}`; `other` for what there is not.
        status: HTTP's.
        seconds: From the request to the end of the answer.
    """

    route: str
    status: int
    seconds: float


class Meter(ABC):
    """Counts. Every method may be called from any thread, and is quick."""

    @abstractmethod
    def job_ended(self, end: JobEnd) -> None:
        """Counts a job that is over."""

    @abstractmethod
    def phases_took(self, strategy: str, seconds: Mapping[str, float]) -> None:
        """Takes how long each phase took in one attempt, waiting for a device included."""

    @abstractmethod
    def worker_started(self) -> None:
        """Counts a worker that runs."""

    @abstractmethod
    def worker_ended(self, *, died: bool) -> None:
        """Counts one that runs no longer; `died` if that was not its own doing nor asked for."""

    @abstractmethod
    def call_ended(self, call: Call) -> None:
        """Counts a call."""

    @abstractmethod
    def page_ended(self, page: Page) -> None:
        """Counts a page."""

    @abstractmethod
    def database_retried(self) -> None:
        """Counts a change that the database did not take, because it was busy or full, and that is tried again."""

    @abstractmethod
    def store_freed(self, size_bytes: int) -> None:
        """Counts bytes that were taken out of the store because nobody named them."""

    @abstractmethod
    def checked(self, check: str, *, passed: bool) -> None:
        """Takes what a readiness check found."""


@final
class Unmeasured(Meter):
    """Counts nothing."""

    def job_ended(self, end: JobEnd) -> None:
        """Nothing."""

    def phases_took(self, strategy: str, seconds: Mapping[str, float]) -> None:
        """Nothing."""

    def worker_started(self) -> None:
        """Nothing."""

    def worker_ended(self, *, died: bool) -> None:
        """Nothing."""

    def call_ended(self, call: Call) -> None:
        """Nothing."""

    def page_ended(self, page: Page) -> None:
        """Nothing."""

    def database_retried(self) -> None:
        """Nothing."""

    def store_freed(self, size_bytes: int) -> None:
        """Nothing."""

    def checked(self, check: str, *, passed: bool) -> None:
        """Nothing."""


def ending_of(job: Job) -> JobEnd:
    """Returns how a finished job ended."""
    outcome = job.state.lower()
    if job.state is State.SUCCEEDED and job.result is not None:
        outcome = str(job.result.get("outcome", "")).removeprefix("OUTCOME_").lower()
    reason = "" if job.failure is None else job.failure.reason
    known = reason if not reason or reason in BY_REASON or reason == "WORKER_LOST" else OTHER
    return JobEnd(outcome, known, job.spec.strategy.name, device_class(job.spec.target.device))


def device_class(device: str) -> str:
    """Returns `agent` or `local`."""
    return "agent" if device.startswith(PREFIX) else "local"


def known_phase(phase: str) -> str:
    """Returns a phase, or `other` for one that there is not: a worker may say anything."""
    return phase if phase in SHARES else OTHER
