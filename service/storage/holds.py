"""Who needs which bytes in the store, so that none are taken away between being put there and being recorded.

Whoever puts bytes into the store, or is glad to find them there, says so in the database first: an upload by its row,
which names the SHA-256 until the file is recorded; a job by a hold. Whoever takes bytes away looks for both, in a
transaction that writes and under the lock below, and takes them away before it ends. So what is named stays, whoever
dies when.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, exists, or_, select, text
from sqlalchemy.orm import Session

from service.database.tables import ArtifactRow, HoldRow, JobRow, UploadRow
from service.jobs.states import State

_LOCK = 0x53484F41
_UNDER_WAY = (State.RUNNING, State.CANCELLING)


def lock_content(session: Session) -> None:
    """Lets nobody else name or take away bytes until the transaction ends.

    SQLite has one writer at a time and needs nothing more.
    """
    if session.connection().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def hold(session: Session, job_id: str, digests: Collection[str]) -> None:
    """Notes the SHA-256 of what a job under way is about to put into the store. Again does no harm."""
    lock_content(session)
    row = session.scalar(select(JobRow.row).where(JobRow.id == job_id))
    if row is not None:
        for sha256 in set(digests):
            session.merge(HoldRow(job_row=row, sha256=sha256))


def is_needed(session: Session, sha256: str) -> bool:
    """Returns whether bytes are named by a file, an upload under way, or a job under way."""
    held = exists().where(HoldRow.sha256 == sha256, JobRow.row == HoldRow.job_row, JobRow.state.in_(_UNDER_WAY))
    found = select(
        or_(
            exists().where(ArtifactRow.sha256 == sha256),
            exists().where(UploadRow.sha256 == sha256, UploadRow.artifact_id.is_(None)),
            held,
        )
    )
    return bool(session.scalar(found))


def forget_holds(session: Session) -> None:
    """Forgets the holds of jobs that are not under way: what these put into the store is recorded, or not wanted."""
    resting = select(JobRow.row).where(JobRow.state.not_in(_UNDER_WAY))
    session.execute(delete(HoldRow).where(HoldRow.job_row.in_(resting)))
