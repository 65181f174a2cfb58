"""Where jobs are kept. Every change is one transaction that checks the state it starts from and writes an event."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from service.database.clock import now
from service.database.database import Database
from service.database.tables import EventRow, JobRow, TurnRow
from service.errors import AlreadyExistsError
from service.jobs.changes import append_snapshot, change_state, decide_recovery, find_row, to_event, to_job
from service.jobs.glance import Glance, glance
from service.jobs.job import Event, Failure, Job, NewJob, Progress
from service.jobs.leases import LET_GO, Holder, Renewal, check, left_behind, renew, taken
from service.jobs.references import check_there
from service.jobs.requests import check_queue, check_same, check_share, hash_request, request_key
from service.jobs.states import State
from service.storage.artifacts import Artifact, add_artifact
from service.storage.holds import hold
from service.watching.kept import Kept, keep
from service.watching.spans import current, new_root


@dataclass(frozen=True)
class Ending:
    """How a job is to end.

    Attributes:
        state: What it becomes if nobody asked for it to be cancelled meanwhile.
        result: For SUCCEEDED.
        failure: For FAILED and EXPIRED.
        artifacts: Files to be recorded in the same transaction.
    """

    state: State
    result: dict[str, Any] | None = None
    failure: Failure | None = None
    artifacts: Sequence[Artifact] = field(default=())


@final
class JobStore:
    """Jobs and their events. Every method is one transaction, and may be called from any thread."""

    def __init__(
        self,
        database: Database,
        listener: Callable[[str], None] = lambda _job_id: None,
        ended: Callable[[Job], None] = lambda _job: None,
        holder: Holder | None = None,
    ) -> None:
        """Works on an open database.

        Args:
            database: Where to keep things.
            listener: Called with a job's id after each committed change, in the thread that made it.
            ended: Called with a job once its state is final, before the listener, in the same thread.
            holder: Who takes jobs.
        """
        self._holder = holder or Holder()
        self._database = database
        self._listener = listener
        self._ended = ended

    def create(self, new: NewJob, queue_limit: int, share: int | None = None) -> Job:
        """Stores a job as QUEUED, or returns the one that the same request of the same principal created before.

        Args:
            new: The job.
            queue_limit: Jobs that may wait.
            share: Jobs of one principal that may wait; None for as many as there is room for.

        Raises:
            AlreadyExistsError: The request id or job id was used for something else.
            QuotaError: So many jobs wait already.
        """
        digest, key = hash_request(new), request_key(new)
        with self._database.write() as session:
            if key and (row := session.scalar(select(JobRow).where(JobRow.request_id == key))):
                return check_same(row, digest, new)
            # Ids are the server's, not the principal's: two jobs of one name would be one too many for an operator.
            if new.id and session.scalar(select(JobRow.row).where(JobRow.id == new.id)):
                raise AlreadyExistsError(
                    "job", f"optimizationJobs/{new.id}", f"there is a job {new.id!r} already; choose another id"
                )
            check_there(session, new.needs)
            check_queue(session, queue_limit)
            if share is not None:
                check_share(session, new.principal, share)
            row = JobRow(
                id=new.id or f"job-{secrets.token_hex(6)}",
                principal=new.principal,
                request_id=key,
                request_hash=digest,
                spec=new.spec.model_dump(mode="json"),
                display_name=new.display_name,
                state=State.QUEUED,
                create_time=now(),
                last_sequence=1,
            )
            session.add(row)
            session.flush()
            job = append_snapshot(session, row)
            keep(session, job.name, _place_in_trace())
        self._listener(job.id)
        return job

    def get(self, job_id: str, principal: str | None = None) -> Job:
        """Returns one job.

        Raises:
            NotFoundError: There is none, or it is another principal's.
        """
        with self._database.read() as session:
            return to_job(find_row(session, job_id, principal))

    def newest(
        self,
        limit: int,
        before: int | None = None,
        principal: str | None = None,
        states: Collection[State] | None = None,
    ) -> list[tuple[int, Job]]:
        """Returns up to `limit` jobs, newest first, each with the number to go on `before`.

        Args:
            limit: How many at most.
            before: Where the last page ended; None for the first.
            principal: Whose; None for everybody's.
            states: In any of these; None for all.
        """
        query = select(JobRow).order_by(JobRow.row.desc()).limit(limit)
        if principal is not None:
            query = query.where(JobRow.principal == principal)
        if before is not None:
            query = query.where(JobRow.row < before)
        if states is not None:
            query = query.where(JobRow.state.in_(states))
        with self._database.read() as session:
            return [(row.row, to_job(row)) for row in session.scalars(query)]

    def census(self, principal: str | None = None) -> dict[State, int]:
        """Returns how many jobs are in which state; all or a principal's."""
        query = select(JobRow.state, func.count()).group_by(JobRow.state)
        if principal is not None:
            query = query.where(JobRow.principal == principal)
        with self._database.read() as session:
            return {State(state): count for state, count in session.execute(query)}

    def in_state(self, *states: State) -> list[Job]:
        """Returns the jobs in any of some states, oldest first."""
        with self._database.read() as session:
            query = select(JobRow).where(JobRow.state.in_(states)).order_by(JobRow.row)
            return [to_job(row) for row in session.scalars(query)]

    def events(self, job_id: str, after: int, limit: int) -> list[Event]:
        """Returns up to `limit` events with a number over `after`, in order."""
        query = (
            select(EventRow)
            .join(JobRow, JobRow.row == EventRow.job_row)
            .where(JobRow.id == job_id, EventRow.sequence > after)
            .order_by(EventRow.sequence)
            .limit(limit)
        )
        with self._database.read() as session:
            return [to_event(row) for row in session.scalars(query)]

    def claim(self) -> Job | None:
        """Takes a QUEUED job and makes it RUNNING; None if nothing waits.

        Principals take turns: it is the oldest job of the one whose turn was longest ago.
        """
        with self._database.write() as session:
            query = (
                select(JobRow.id, JobRow.principal)
                .outerjoin(TurnRow, TurnRow.principal == JobRow.principal)
                .where(JobRow.state == State.QUEUED)
                .order_by(func.coalesce(TurnRow.turn, 0), JobRow.row)
                .limit(1)
            )
            found = session.execute(query).one_or_none()
            if found is None:
                return None
            job_id, principal = found
            last = session.scalar(select(func.max(TurnRow.turn))) or 0
            session.merge(TurnRow(principal=principal, turn=last + 1))
            started = func.coalesce(JobRow.start_time, now())
            values = {"attempts": JobRow.attempts + 1, "start_time": started, "progress": None}
            values |= taken(session, self._holder)
            job = change_state(session, job_id, State.QUEUED, State.RUNNING, values)
        self._listener(job.id)
        return job

    def record_progress(self, job_id: str, progress: Progress, attempt: int | None = None) -> None:
        """Appends a progress event to a RUNNING job; in any other state it comes too late and is dropped.

        Args:
            job_id: The job.
            progress: How far it is.
            attempt: Dropped too when this is no longer the attempt that this server is at; None for whichever it is.
        """
        body = progress.model_dump(mode="json")
        with self._database.change() as session:
            changed = (
                update(JobRow)
                .where(JobRow.id == job_id, JobRow.state == State.RUNNING, *self._fence(attempt))
                .values(progress=body, last_sequence=JobRow.last_sequence + 1)
                .returning(JobRow.row, JobRow.last_sequence)
            )
            row = session.execute(changed).one_or_none()
            if row is None:
                return
            session.add(EventRow(job_row=row[0], sequence=row[1], time=now(), kind="progress", body=body))
        self._listener(job_id)

    def hold(self, job_id: str, digests: Collection[str]) -> None:
        """Notes what a job under way is about to put into the store (`service.storage.holds`)."""
        with self._database.write() as session:
            hold(session, job_id, digests)

    def request_cancel(self, job_id: str) -> Job:
        """Makes a QUEUED job CANCELLED and a RUNNING one CANCELLING; returns the job, any other unchanged."""
        with self._database.write() as session:
            state = State(find_row(session, job_id).state)
            if state is State.QUEUED:
                job = change_state(session, job_id, state, State.CANCELLED, {"end_time": now()})
            elif state is State.RUNNING:
                job = change_state(session, job_id, state, State.CANCELLING, {})
            else:
                return to_job(find_row(session, job_id))
        self._tell(job)
        return job

    def finish(self, job_id: str, ending: Ending, attempt: int | None = None) -> Job:
        """Ends a RUNNING job as asked; a CANCELLING one becomes CANCELLED whatever was asked.

        Args:
            job_id: The job.
            ending: How it is to end.
            attempt: Which attempt comes to this end; None for whichever this server is at.

        Raises:
            IllegalTransitionError: It is in neither state.
            LeaseLostError: This server is not at that attempt any more.
        """
        with self._database.write() as session:
            state = self._held(session, job_id, attempt)
            values: dict[str, Any] = {"end_time": now(), **LET_GO}
            target = State.CANCELLED if state is State.CANCELLING else ending.state
            if target is not State.CANCELLED:
                values["result"] = ending.result
                values["failure"] = None if ending.failure is None else ending.failure.model_dump(mode="json")
                for artifact in ending.artifacts:
                    add_artifact(session, artifact)
            job = change_state(session, job_id, state, target, values)
        self._tell(job)
        return job

    def count_against(self, job_id: str, what: Literal["losses", "setbacks"], attempt: int) -> int:
        """Counts something that ended an attempt at a job, and returns how often it has happened, on all servers.

        Args:
            job_id: The job.
            what: `losses` of servers and machines, or `setbacks` of workers.
            attempt: Which attempt it ended.

        Raises:
            LeaseLostError: This server is not at that attempt any more.
        """
        with self._database.write() as session:
            row = find_row(session, job_id, lock=True)
            check(row, self._holder, attempt)
            found = row.losses + 1 if what == "losses" else row.setbacks + 1
            setattr(row, what, found)
            return found

    def requeue(self, job_id: str, attempt: int | None = None) -> Job:
        """Puts a RUNNING job back to QUEUED, to go on in another worker; a CANCELLING one becomes CANCELLED.

        Args:
            job_id: The job.
            attempt: Which attempt is over; None for whichever this server is at.

        Raises:
            IllegalTransitionError: It is in neither state.
            LeaseLostError: This server is not at that attempt any more.
        """
        with self._database.write() as session:
            state = self._held(session, job_id, attempt)
            target = State.CANCELLED if state is State.CANCELLING else State.QUEUED
            values = {"end_time": now()} if target is State.CANCELLED else {}
            job = change_state(session, job_id, state, target, {**values, **LET_GO})
        self._tell(job)
        return job

    def renew(self, held: Mapping[str, int]) -> Renewal:
        """Renews the leases of this server's jobs; `held` has the attempt of each."""
        with self._database.change() as session:
            return renew(session, self._holder, held)

    def glance(self, watched: Collection[str], held: Mapping[str, int]) -> Glance:
        """Returns what became of jobs that are watched here, and of those that run here by their attempts."""
        with self._database.read() as session:
            return glance(session, self._holder, watched, held)

    def recover(self, max_attempts: int, held: Collection[str] = (), *, starting: bool = True) -> list[Job]:
        """Puts jobs back that a server left behind.

        RUNNING jobs go back to QUEUED, or to FAILED when this happened `max_attempts` times; CANCELLING ones become
        CANCELLED.

        Args:
            max_attempts: How often a job may be left behind.
            held: What this server runs.
            starting: This server runs nothing yet, so what it ran before is left behind; else, only leases count.

        Returns:
            The jobs as they are now.
        """
        recovered = []
        with self._database.write() as session:
            for row in left_behind(session, self._holder, held, starting=starting):
                target, values = decide_recovery(row, max_attempts)
                recovered.append(change_state(session, row.id, State(row.state), target, {**values, **LET_GO}))
        for job in recovered:
            self._tell(job)
        return recovered

    def _held(self, session: Session, job_id: str, attempt: int | None) -> State:
        """Returns the state of a job that this server holds, as it stays until the transaction is over."""
        row = find_row(session, job_id, lock=True)
        check(row, self._holder, attempt)
        return State(row.state)

    def _fence(self, attempt: int | None) -> list[ColumnElement[bool]]:
        if attempt is None:
            return []
        return [JobRow.runner == self._holder.runner, JobRow.attempts == attempt]

    def _tell(self, job: Job) -> None:
        if job.finished:
            self._ended(job)
        self._listener(job.id)


def _place_in_trace() -> Kept:
    """Returns the place of a new job: below the call that creates it, else a trace of its own."""
    parent = current()
    return Kept(new_root("job"), "") if parent is None else Kept(parent.child(), parent.span_id)
