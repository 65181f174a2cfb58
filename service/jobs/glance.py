"""What other servers of the same database did to jobs, seen in one look: cheap enough for once a second."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database.tables import JobRow
from service.jobs.leases import Holder, Renewal
from service.jobs.states import State


@dataclass(frozen=True)
class Glance:
    """How things stand.

    Attributes:
        sequences: Number of the newest event of jobs that are watched here, by job id.
        held: What became of the jobs that run here.
        waiting: There is something in the queue.
    """

    sequences: Mapping[str, int]
    held: Renewal
    waiting: bool


def glance(session: Session, holder: Holder, watched: Collection[str], held: Mapping[str, int]) -> Glance:
    """Looks; changes nothing.

    Args:
        session: In a transaction.
        holder: The server that looks.
        watched: Ids of jobs that somebody watches here.
        held: Attempt by id of the jobs that run here.
    """
    return Glance(_sequences(session, watched), _held(session, holder, held), _waiting(session))


def _sequences(session: Session, watched: Collection[str]) -> dict[str, int]:
    if not watched:
        return {}
    query = select(JobRow.id, JobRow.last_sequence).where(JobRow.id.in_(watched))
    return {job_id: sequence for job_id, sequence in session.execute(query)}  # noqa: C416 (rows are no tuples to mypy)


def _held(session: Session, holder: Holder, held: Mapping[str, int]) -> Renewal:
    if not held:
        return Renewal(frozenset(), frozenset())
    query = select(JobRow.id, JobRow.attempts, JobRow.state).where(JobRow.id.in_(held), JobRow.runner == holder.runner)
    ours = {job_id: state for job_id, attempt, state in session.execute(query) if held[job_id] == attempt}
    cancelling = frozenset(job_id for job_id, state in ours.items() if state == State.CANCELLING)
    return Renewal(frozenset(held) - frozenset(ours), cancelling)


def _waiting(session: Session) -> bool:
    return session.scalar(select(JobRow.row).where(JobRow.state == State.QUEUED).limit(1)) is not None
