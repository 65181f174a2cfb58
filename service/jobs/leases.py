"""Who runs a job, and for how long that holds.

A server that takes a job from the queue holds it under a lease, which it renews. When it fails to, any server puts the
job back. `attempts` counts up each time a job is taken; so the server and the attempt together are a fencing token:
what comes under an older one is refused, however late the server learns that it lost the job.

Lease times are the database's: servers' clocks may differ.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from service.database.clock import clock
from service.database.tables import JobRow
from service.errors import LeaseLostError
from service.jobs.states import State

RUN_STATES: Final = (State.RUNNING, State.CANCELLING)
"""States in which some server is at a job."""

LET_GO: Final[Mapping[str, Any]] = {"runner": None, "lease_until": None}
"""Columns of a job that nobody runs."""


@dataclass(frozen=True)
class Holder:
    """Who takes jobs.

    Attributes:
        runner: Id of the server, the same after a restart.
        seconds: How long a lease holds.
    """

    runner: str = "local"
    seconds: float = 30.0


@dataclass(frozen=True)
class Renewal:
    """What a server learns when it renews its leases, by job id.

    Attributes:
        lost: Taken from it: it has no part in them any more.
        cancelling: Somebody wants them stopped.
    """

    lost: frozenset[str]
    cancelling: frozenset[str]


def runner_of(folder: Path) -> str:
    """Returns the id of the server whose state folder this is; made at the first call."""
    path = folder / "runner"
    if not path.exists():
        partial = path.with_name("runner.partial")
        partial.write_text(f"server-{secrets.token_hex(6)}\n")
        partial.rename(path)
    return path.read_text().strip()


def taken(session: Session, holder: Holder) -> dict[str, Any]:
    """Returns the columns of a job that a server takes now."""
    return {"runner": holder.runner, "lease_until": _until(session, holder)}


def renew(session: Session, holder: Holder, held: Mapping[str, int]) -> Renewal:
    """Renews leases in one statement, which is right whatever others do meanwhile.

    Args:
        session: In a transaction that writes.
        holder: The server.
        held: Attempt by job id: what it believes to hold.
    """
    changed = (
        update(JobRow)
        .where(JobRow.id.in_(held), JobRow.runner == holder.runner, JobRow.state.in_(RUN_STATES))
        .values(lease_until=_until(session, holder))
        .returning(JobRow.id, JobRow.attempts, JobRow.state)
    )
    # Held under a newer attempt: this server has it again, but the older attempt has lost it.
    kept = {job_id: state for job_id, attempt, state in session.execute(changed) if held[job_id] == attempt}
    cancelling = frozenset(job_id for job_id, state in kept.items() if state == State.CANCELLING)
    return Renewal(frozenset(held) - frozenset(kept), cancelling)


def left_behind(session: Session, holder: Holder, held: Collection[str], *, starting: bool) -> list[JobRow]:
    """Returns the jobs that nobody runs any more, oldest first; locked, so that no late renewal saves them.

    Args:
        session: In a transaction that writes.
        holder: The server that looks.
        held: What it runs itself, whatever became of the leases.
        starting: It runs nothing yet: what it ran before, and what an older Shoal ran, is left behind too.
    """
    late: ColumnElement[bool] = JobRow.lease_until < clock(session)
    if starting:
        late = or_(late, JobRow.runner == holder.runner, JobRow.runner.is_(None))
    query = (
        select(JobRow)
        .where(JobRow.state.in_(RUN_STATES), JobRow.id.not_in(held), late)
        .order_by(JobRow.row)
        .with_for_update()
    )
    return list(session.scalars(query))


def check(row: JobRow, holder: Holder, attempt: int | None) -> None:
    """Checks that a server still holds a job.

    Args:
        row: The job, locked.
        holder: The server.
        attempt: Under which attempt; None for whichever.

    Raises:
        LeaseLostError: It does not.
    """
    if attempt is not None and (row.runner, row.attempts) != (holder.runner, attempt):
        raise LeaseLostError(
            f"attempt {attempt} at job {row.id} is no longer this server's: its lease ran out, and attempt "
            f"{row.attempts} is {'over' if row.runner is None else f'with {row.runner}'}; what it did is dropped"
        )


def _until(session: Session, holder: Holder) -> datetime:
    return clock(session) + timedelta(seconds=holder.seconds)
