"""What is seen of a job: its span from creation to end, one for each attempt, and what is counted of both."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from service.database.database import Database
from service.devices.agents import PREFIX
from service.jobs.job import Job
from service.watching.kept import Kept, drop, find
from service.watching.meter import Meter, device_class, ending_of, known_phase
from service.watching.place import Place
from service.watching.spans import FinishedSpan, Value, hand_in, spanning, standing_at
from service.watching.surroundings import surrounded

_LOG = logging.getLogger(__name__)


@final
class Attempt:
    """One worker at one job."""

    def __init__(self, place: Place) -> None:
        self.traceparent = place.traceparent
        self.died = False
        self._seconds: dict[str, float] = {}
        self._phase: str | None = None
        self._since = time.monotonic()

    def entered(self, phase: str) -> None:
        """Says what the worker is at."""
        if phase != self._phase:
            self._book()
            self._phase = known_phase(phase)

    def finish(self) -> dict[str, float]:
        """Returns how long each phase took, seconds."""
        self._book()
        return dict(self._seconds)

    def _book(self) -> None:
        present = time.monotonic()
        if self._phase is not None:
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + present - self._since
        self._since = present


@final
class JobWatch:
    """Watches the jobs of one server."""

    def __init__(self, database: Database, meter: Meter) -> None:
        """Watches nothing yet."""
        self._database = database
        self.meter = meter

    @contextmanager
    def following(self, job: Job, place: Place | None) -> Iterator[None]:
        """Surrounds what a server does for a job, which stands at a place in its trace."""
        with surrounded(job=job.name), standing_at(place):
            yield

    @contextmanager
    def attempt(self, job: Job) -> Iterator[Attempt]:
        """Surrounds one worker at a job, inside of `following`."""
        attributes: dict[str, Value] = {
            "shoal.job": job.name,
            "shoal.strategy": job.spec.strategy.name,
            "shoal.attempt": job.attempts,
        }
        with spanning("attempt", attributes=attributes) as span:
            attempt = Attempt(span.place)
            self.meter.worker_started()
            try:
                yield attempt
            finally:
                span.error = "WORKER_DIED" if attempt.died else ""
                self.meter.worker_ended(died=attempt.died)
                self.meter.phases_took(job.spec.strategy.name, attempt.finish())

    @contextmanager
    def dry_run(self, name: str, device: str) -> Iterator[Attempt]:
        """Surrounds one worker at a dry run."""
        with surrounded(job=name), spanning("dry run", attributes={"shoal.device_class": device_class(device)}) as span:
            attempt = Attempt(span.place)
            self.meter.worker_started()
            try:
                yield attempt
            finally:
                self.meter.worker_ended(died=attempt.died)

    def ended(self, job: Job) -> None:
        """Takes a job that is over. Called in the thread that ended it; blocks."""
        end = ending_of(job)
        self.meter.job_ended(end)
        kept = self._let_go(job.name)
        if kept is None or job.end_time is None:
            return
        attributes: dict[str, Value] = {
            "shoal.job": job.name,
            "shoal.outcome": end.outcome,
            "shoal.strategy": end.strategy,
            "shoal.device": job.spec.target.device.removeprefix(PREFIX),
            "shoal.attempts": job.attempts,
        }
        begin, over = (round(moment.timestamp() * 1e9) for moment in (job.create_time, job.end_time))
        hand_in(FinishedSpan("job", kept.place, kept.parent_id, "internal", begin, over, attributes, end.reason))

    def place(self, job: Job) -> Place | None:
        """Returns where a job stands in its trace; None where that cannot be told now. Blocks."""
        try:
            with self._database.read() as session:
                kept = find(session, job.name)
        except Exception:  # noqa: BLE001 (whoever only watches does no harm)
            _LOG.exception("cannot read the trace of %s", job.name)
            return None
        return None if kept is None else kept.place

    def _let_go(self, name: str) -> Kept | None:
        try:
            with self._database.write() as session:
                kept = find(session, name)
                drop(session, [name])
        except Exception:  # noqa: BLE001 (whoever only watches does no harm)
            _LOG.exception("cannot take leave of the trace of %s", name)
            return None
        return kept
