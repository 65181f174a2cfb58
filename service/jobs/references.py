"""Which stored files jobs name. What a spec's text holds counts, so that new fields need nothing here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from service.database.tables import ArtifactRow, JobRow
from service.errors import InvalidRequestError, Violation
from service.jobs.states import FINAL
from service.storage.artifacts import ARTIFACT_PREFIX


def artifacts_named(spec: Any) -> Iterator[str]:
    """Yields the id of every artifact that is named anywhere in a spec, which is plain data."""
    if isinstance(spec, str):
        if spec.startswith(ARTIFACT_PREFIX):
            yield spec.removeprefix(ARTIFACT_PREFIX)
    elif isinstance(spec, Mapping):
        for value in spec.values():
            yield from artifacts_named(value)
    elif isinstance(spec, Collection):
        for value in spec:
            yield from artifacts_named(value)


def check_there(session: Session, names: Collection[str]) -> None:
    """Makes sure, in the transaction that creates a job, that no file was removed since its spec was checked.

    Args:
        session: The transaction.
        names: `artifacts/{id}`.

    Raises:
        InvalidRequestError: One was.
    """
    named = set(artifacts_named(names))
    there = set(session.scalars(select(ArtifactRow.id).where(ArtifactRow.id.in_(named)))) if named else set()
    if gone := sorted(named - there):
        rule = "was removed meanwhile; upload the file again"
        raise InvalidRequestError([Violation("spec", f"{ARTIFACT_PREFIX}{each} {rule}") for each in gone])


def user_of(session: Session, artifact_id: str) -> str | None:
    """Returns the id of a job that is not finished and names an artifact; None where there is none."""
    rows = session.execute(select(JobRow.id, JobRow.spec).where(JobRow.state.not_in(FINAL)))
    return next((job_id for job_id, spec in rows if artifact_id in artifacts_named(spec)), None)


def used_since(session: Session, limit: datetime) -> set[str]:
    """Returns the ids of all artifacts that are named by a job that is not finished, or ended after `limit`."""
    recent = or_(JobRow.state.not_in(FINAL), JobRow.end_time > limit)
    specs = session.scalars(select(JobRow.spec).where(recent).execution_options(yield_per=200))
    return {artifact_id for spec in specs for artifact_id in artifacts_named(spec)}
