"""What an executor promises: one order, run to its end in a worker somewhere, with all that it says on the way."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from service.devices.carrier import Carrier
from service.report.schema import Report
from service.storage.artifacts import Artifact
from service.worker.messages import AnalysisResult, ProgressEvent, WorkOrder
from service.worker.process import Exit


@dataclass(frozen=True)
class Errand:
    """One attempt at a job, or a dry run.

    Attributes:
        order: What to do. `files` is empty: whoever runs it brings them within reach. `deadline_seconds` is the whole
            limit, of which earlier attempts may have used up some.
        principal: Whose results they will be.
        attempt: Number of the attempt, larger than that of any before; 0 for a dry run, which keeps no checkpoints.
    """

    order: WorkOrder
    principal: str
    attempt: int = 0

    @property
    def job_id(self) -> str:
        """The job's id without its collection."""
        return self.order.job.rpartition("/")[2]


@dataclass(frozen=True)
class Ears:
    """Who hears what is said while an errand runs, and how it is stopped.

    Attributes:
        on_progress: Called with each progress event, in the event loop.
        stop: When set, the worker is stopped: SIGTERM, then SIGKILL.
        desk: Carries its questions to a device far away; None where the job names none.
        tell: Told what the job waits for, if it does.
        hold: Called with the SHA-256 of the job's results before they are put into the store, so that nobody takes
            them away (`service.storage.holds`); blocks, and may be called again. Does nothing where the database is far
            away.
    """

    on_progress: Callable[[ProgressEvent], None]
    stop: asyncio.Event
    desk: Carrier | None = None
    tell: Callable[[str], None] = lambda _message: None
    hold: Callable[[Collection[str]], None] = lambda _digests: None


@dataclass(frozen=True)
class Ended:
    """How an errand ended.

    Attributes:
        exit: How its worker ended.
        went_on: The worker had kept work that attempts before it had not.
        scarce: There was hardly any room left where it ran.
        lost: Why the machine that it ran on is not there any more; empty where it is.
        report: Of a job that has a result.
        artifacts: Facts of its files, whose bytes are in the store and which are not recorded yet.
        analysis: Of a dry run that has a result.
    """

    exit: Exit
    went_on: bool = False
    scarce: bool = False
    lost: str = ""
    report: Report | None = None
    artifacts: tuple[Artifact, ...] = ()
    analysis: AnalysisResult | None = None


class Executor(ABC):
    """Runs errands. Belongs to one event loop."""

    @abstractmethod
    async def start(self) -> None:
        """Gets ready.

        Raises:
            ExecutorError: It cannot be used; the message says what to do.
        """

    @abstractmethod
    async def run(self, errand: Errand, ears: Ears) -> Ended:
        """Runs a worker until it is gone, with all the processes that it started; cancelling this ends it too.

        Raises:
            ServiceError: Something that the order names is gone, or the result is not what it should be; or there was
                no room, database or storage (`service.waiting.PASSING`) until it was stopped.
            OSError: The worker could not be started.
        """

    @abstractmethod
    def devices(self) -> Sequence[str] | None:
        """Returns the devices that `local/...` may name; None where only running a job tells. Blocks."""

    @abstractmethod
    def forget(self, job_id: str) -> None:
        """Drops what is kept of a job that is over. Blocks."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of what `start` took. Blocks; nothing may run any more."""
