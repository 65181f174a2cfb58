"""One change of a job, within a transaction: the row is found, checked and changed, and the change becomes an event."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.database.clock import now
from service.database.tables import EventRow, JobRow
from service.errors import IllegalTransitionError, NotFoundError
from service.jobs.job import Event, Failure, Job, Progress
from service.jobs.states import TRANSITIONS, State

_PROGRESS: TypeAdapter[Progress | None] = TypeAdapter(Progress | None)
_FAILURE: TypeAdapter[Failure | None] = TypeAdapter(Failure | None)


def find_row(session: Session, job_id: str, principal: str | None = None, *, lock: bool = False) -> JobRow:
    """Returns a job's row.

    Args:
        session: A transaction.
        job_id: The job.
        principal: Whose it has to be; None for anybody's.
        lock: Keep it as it is until the transaction is over.

    Raises:
        NotFoundError: There is none, or it is another principal's.
    """
    query = select(JobRow).where(JobRow.id == job_id)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None or principal not in {None, row.principal}:
        raise NotFoundError("job", f"optimizationJobs/{job_id}")
    return row


def change_state(session: Session, job_id: str, start: State, to: State, values: dict[str, Any]) -> Job:
    """Takes a job from one state to another, and writes the event of it.

    Args:
        session: A transaction that writes.
        job_id: The job.
        start: The state that it has to be in.
        to: What it becomes.
        values: Other columns that change with it.

    Returns:
        The job as it is then.

    Raises:
        IllegalTransitionError: It is in another state, or there is no way from `start` to `to`.
    """
    if to not in TRANSITIONS[start]:
        raise IllegalTransitionError(f"job {job_id} is {start} and cannot become {to}")
    changed = (
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state == start)
        .values(state=to, last_sequence=JobRow.last_sequence + 1, **values)
        .returning(JobRow)
        .execution_options(populate_existing=True)
    )
    row = session.scalars(changed).one_or_none()
    if row is None:
        actual = find_row(session, job_id).state
        raise IllegalTransitionError(f"job {job_id} became {actual} meanwhile and cannot go from {start} to {to}")
    return append_snapshot(session, row)


def decide_recovery(row: JobRow, max_attempts: int) -> tuple[State, dict[str, Any]]:
    """Returns what becomes of a job whose server died, and the columns that change with it."""
    if row.state == State.CANCELLING:
        return State.CANCELLED, {"end_time": now()}
    losses = row.losses + 1
    if losses < max_attempts:
        return State.QUEUED, {"losses": losses}
    message = f"the server died {losses} times while this job ran, so it may be the cause; look at the server's log"
    failure = Failure(reason="WORKER_LOST", message=message, blame="machine")
    return State.FAILED, {"losses": losses, "end_time": now(), "failure": failure.model_dump(mode="json")}


def append_snapshot(session: Session, row: JobRow) -> Job:
    """Writes the event that says what a job is like now, and returns the job."""
    job = to_job(row)
    body = job.model_dump(mode="json")
    session.add(EventRow(job_row=row.row, sequence=row.last_sequence, time=now(), kind="snapshot", body=body))
    return job


def to_job(row: JobRow) -> Job:
    """Returns the job of a row."""
    return Job(
        id=row.id,
        principal=row.principal,
        spec=row.spec,
        display_name=row.display_name,
        state=State(row.state),
        progress=_PROGRESS.validate_python(row.progress),
        result=row.result,
        failure=_FAILURE.validate_python(row.failure),
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
        attempts=row.attempts,
        last_sequence=row.last_sequence,
    )


def to_event(row: EventRow) -> Event:
    """Returns the event of a row."""
    body = Job.model_validate(row.body) if row.kind == "snapshot" else Progress.model_validate(row.body)
    return Event(row.sequence, row.time, body)
