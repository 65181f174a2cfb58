"""Where a job, or a piece of device work, stands in a trace: in the database, so that a trace outlives a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete
from sqlalchemy.orm import Session

from service.database.tables import TraceRow
from service.watching.place import Place, parse


@dataclass(frozen=True)
class Kept:
    """A place and the span that it is a part of, empty for none."""

    place: Place
    parent_id: str


def keep(session: Session, subject: str, kept: Kept) -> None:
    """Keeps the place of a subject, e.g. `optimizationJobs/some`; replaces what was kept."""
    session.merge(TraceRow(subject=subject, traceparent=kept.place.traceparent, parent_id=kept.parent_id))


def find(session: Session, subject: str) -> Kept | None:
    """Returns what is kept of a subject."""
    row = session.get(TraceRow, subject)
    place = None if row is None else parse(row.traceparent)
    return None if row is None or place is None else Kept(place, row.parent_id)


def drop(session: Session, subjects: Sequence[str]) -> None:
    """Forgets subjects."""
    session.execute(delete(TraceRow).where(TraceRow.subject.in_(subjects)))
