"""A request for a job: whether there is room for it, and whether it is the same as one before."""

from __future__ import annotations

import hashlib
import json
import uuid

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.access.principal import LOCAL_NAME
from service.database.tables import JobRow
from service.errors import AlreadyExistsError, QuotaError
from service.jobs.changes import to_job
from service.jobs.job import Job, NewJob
from service.jobs.states import State

QUEUE_RETRY_SECONDS = 30.0
_REQUESTS = uuid.UUID("6d5e1f0e-6f0b-4d0b-9a53-0c1f8f1f6a57")


def check_queue(session: Session, limit: int) -> None:
    """Makes sure that fewer than `limit` jobs wait.

    Raises:
        QuotaError: It is not so.
    """
    waiting = session.scalar(select(func.count()).select_from(JobRow).where(JobRow.state == State.QUEUED)) or 0
    if waiting >= limit:
        raise QuotaError(
            "queued jobs", f"{waiting} jobs wait already, as many as this server takes", QUEUE_RETRY_SECONDS
        )


def check_share(session: Session, principal: str, limit: int) -> None:
    """Makes sure that fewer than `limit` jobs of a principal wait.

    Raises:
        QuotaError: It is not so.
    """
    mine = (JobRow.state == State.QUEUED) & (JobRow.principal == principal)
    waiting = session.scalar(select(func.count()).select_from(JobRow).where(mine)) or 0
    if waiting >= limit:
        raise QuotaError(
            "queued jobs", f"{waiting} of your jobs wait already, as many as one may have here", QUEUE_RETRY_SECONDS
        )


def request_key(new: NewJob) -> str | None:
    """Returns what a request is known by: two principals may use the same id without learning of each other."""
    if not new.request_id or new.principal == LOCAL_NAME:
        return new.request_id or None
    # Version 5, so never the version 4 of a request of `local`.
    return str(uuid.uuid5(_REQUESTS, f"{new.principal}/{new.request_id}"))


def hash_request(new: NewJob) -> str:
    """Returns what tells two requests for different jobs apart."""
    body = json.dumps([new.spec.model_dump(mode="json"), new.display_name, new.id], sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()


def check_same(row: JobRow, digest: str, new: NewJob) -> Job:
    """Returns the job that the same request created before.

    Raises:
        AlreadyExistsError: It was another request, of the same id.
    """
    if row.request_hash != digest:
        raise AlreadyExistsError(
            "job",
            f"optimizationJobs/{row.id}",
            f"request_id {new.request_id} created job {row.id} from another request; use a new UUID4",
        )
    return to_job(row)
