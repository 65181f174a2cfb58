"""Work for devices: a queue by agent, leases with fencing, answers that count once.

    WAITING  --lease-->  LEASED  --complete-->  DONE
       ^                   |
       +--- lease lost ----+        (a new session of the agent, or no sign of life for LEASE)
       |
       +--- the lease of MOST_LEASES lost --->  DONE, failed

`lease` counts up each time a piece is given out, and an answer counts only under the last one given. So a piece may be
begun twice, after a loss, but has one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.database.clock import clock, now
from service.database.database import Database
from service.database.tables import DeviceWorkRow
from service.devices.agents import check_speaker
from service.watching.kept import Kept, drop, find, keep
from service.watching.place import Place

LEASE: Final = timedelta(seconds=60)
"""How long a lease holds without a sign of life."""

MOST_LEASES: Final = 5
"""How often a piece is given out. Work that has ended its agent so often, or its machine, would go on doing so."""

_MAX_MESSAGE = 2000


class WorkState(StrEnum):
    """Where a piece of work stands."""

    WAITING = "WAITING"
    LEASED = "LEASED"
    DONE = "DONE"


@dataclass(frozen=True)
class StoredFile:
    """A file of a piece of work; its bytes are in the store, by its place."""

    filename: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class WorkAnswer:
    """What came of it.

    Attributes:
        files: The first is the result; none where it failed.
        failure: Class and message of the error, None where there was none.
        took: Seconds on the device.
    """

    files: tuple[StoredFile, ...] = ()
    failure: tuple[str, str] | None = None
    took: float = 0.0


@dataclass(frozen=True)
class DeviceWork:
    """One piece of work."""

    id: str
    job_id: str
    agent: str
    state: WorkState
    kind: str
    request: Mapping[str, Any]
    files: tuple[StoredFile, ...]
    lease: int
    message: str
    answer: WorkAnswer | None
    worked: float = 0.0
    """Seconds that it has been worked on under its lease, as far as its agent has said."""


@final
class WorkStore:
    """The queue. Every method is one transaction, and may be called from any thread."""

    def __init__(self, database: Database) -> None:
        """Works on an open database."""
        self._database = database

    def find(self, work_id: str) -> DeviceWork | None:
        """Returns a piece of work; None where there is none of that id."""
        with self._database.read() as session:
            row = _row(session, work_id)
            return None if row is None else _work(row)

    def add(self, work: DeviceWork, place: Place | None = None) -> DeviceWork:
        """Queues a piece of work, or returns what is there under its id; `place` is a new one's in a trace."""
        with self._database.write() as session:
            row = _row(session, work.id)
            if row is None:
                row = DeviceWorkRow(
                    id=work.id,
                    job_id=work.job_id,
                    agent=work.agent,
                    state=WorkState.WAITING,
                    kind=work.kind,
                    request=dict(work.request),
                    files=[_facts(file) for file in work.files],
                    create_time=now(),
                )
                session.add(row)
                session.flush()
                if place is not None:
                    keep(session, work.id, Kept(place, ""))
            return _work(row)

    def place(self, work_id: str) -> Place | None:
        """Returns where a piece of work stands in a trace; None where that is not known."""
        with self._database.read() as session:
            kept = find(session, work_id)
        return None if kept is None else kept.place

    def lease(self, agent: str, session_id: str) -> DeviceWork | None:
        """Gives out the agent's next piece of work; what this session holds already, again.

        What was given out `MOST_LEASES` times and lost each time has failed, and is passed over.

        Returns:
            None where there is nothing to do.

        Raises:
            AgentRefusedError: Another session speaks for the agent now.
        """
        with self._database.write() as session:
            check_speaker(session, agent, session_id)
            own = select(DeviceWorkRow).where(DeviceWorkRow.agent == agent).order_by(DeviceWorkRow.row)
            leased = session.scalars(own.where(DeviceWorkRow.state == WorkState.LEASED)).all()
            for row in leased:
                if row.session == session_id:
                    row.lease_until = clock(session) + LEASE
                    return _work(row)
                # Another session of the same agent had it: that one is gone, or will be told so.
                row.state = WorkState.WAITING
            for row in session.scalars(own.where(DeviceWorkRow.state == WorkState.WAITING)).all():
                if row.lease < MOST_LEASES:
                    _give_out(session, row, session_id)
                    return _work(row)
                _give_up(row)
            return None

    def renew(self, held: Held, message: str, worked: float = 0.0) -> bool:
        """Keeps a lease, `worked` seconds into the work; returns whether it is still wanted from who holds it."""
        with self._database.write() as session:
            row = _held(session, held)
            if row is None:
                return False
            row.state, row.lease_until, row.message = WorkState.LEASED, clock(session) + LEASE, message[:_MAX_MESSAGE]
            row.worked = max(0.0, worked)
            return True

    def may_complete(self, held: Held) -> bool:
        """Returns whether an answer would count."""
        with self._database.read() as session:
            return _held(session, held) is not None

    def complete(self, held: Held, answer: WorkAnswer) -> bool:
        """Takes an answer; returns whether it counts. The same answer again counts as well."""
        with self._database.write() as session:
            row = _row(session, held.work_id)
            if row is not None and row.state == WorkState.DONE:
                return row.lease == held.lease and row.session == held.session
            row = _held(session, held)
            if row is None:
                return False
            _end(row, answer)
            return True

    def expire(self) -> list[str]:
        """Puts work back whose lease ran out; returns the agents that it is for."""
        with self._database.write() as session:
            late = select(DeviceWorkRow).where(
                DeviceWorkRow.state == WorkState.LEASED, DeviceWorkRow.lease_until < clock(session)
            )
            rows = session.scalars(late).all()
            for row in rows:
                row.state = WorkState.WAITING
            return [row.agent for row in rows]

    def drop(self, job_id: str) -> list[str]:
        """Forgets the work of a job; returns the ids of what is gone."""
        with self._database.write() as session:
            own = DeviceWorkRow.job_id == job_id
            gone = list(session.scalars(select(DeviceWorkRow.id).where(own)))
            session.execute(delete(DeviceWorkRow).where(own))
            drop(session, gone)
            return gone

    def waiting(self) -> dict[str, tuple[int, int]]:
        """Returns by agent how many pieces wait and how many are under way."""
        query = select(DeviceWorkRow.agent, DeviceWorkRow.state, func.count()).group_by(
            DeviceWorkRow.agent, DeviceWorkRow.state
        )
        found: dict[str, tuple[int, int]] = {}
        with self._database.read() as session:
            for agent, state, count in session.execute(query):
                waiting, leased = found.get(agent, (0, 0))
                found[agent] = (
                    waiting + count * (state == WorkState.WAITING),
                    leased + count * (state == WorkState.LEASED),
                )
        return found


@dataclass(frozen=True)
class Held:
    """Who claims to hold what: a session of an agent, a piece of work, under a lease."""

    agent: str
    session: str
    work_id: str
    lease: int


def _row(session: Session, work_id: str) -> DeviceWorkRow | None:
    return session.scalar(select(DeviceWorkRow).where(DeviceWorkRow.id == work_id))


def _held(session: Session, held: Held) -> DeviceWorkRow | None:
    """Returns the row if it was last given out to this session under this lease, and is not done.

    A lease that ran out still counts as long as nobody else was given the work: what was done is not thrown away.
    """
    row = _row(session, held.work_id)
    if row is None or (row.agent, row.session, row.lease) != (held.agent, held.session, held.lease):
        return None
    return None if row.state == WorkState.DONE else row


def _give_out(session: Session, row: DeviceWorkRow, session_id: str) -> None:
    row.state, row.session, row.message, row.worked = WorkState.LEASED, session_id, "", 0.0
    row.lease += 1
    row.lease_until = clock(session) + LEASE


def _give_up(row: DeviceWorkRow) -> None:
    """Ends work that is lost each time: nobody's late answer counts any more."""
    message = (
        f"agent/{row.agent} was given this work (`{row.kind}`) {row.lease} times and was lost each time before it "
        "answered; see its log, and whether the device runs out of memory or restarts"
    )
    row.session = None
    _end(row, WorkAnswer(failure=("MeasureError", message)))


def _end(row: DeviceWorkRow, answer: WorkAnswer) -> None:
    row.state, row.message = WorkState.DONE, ""
    row.answer = {
        "files": [_facts(file) for file in answer.files],
        "failure": None if answer.failure is None else list(answer.failure),
        "took": answer.took,
    }


def _facts(file: StoredFile) -> dict[str, Any]:
    return {"filename": file.filename, "size_bytes": file.size_bytes, "sha256": file.sha256}


def _files(facts: Sequence[Mapping[str, Any]]) -> tuple[StoredFile, ...]:
    return tuple(StoredFile(**one) for one in facts)


def _work(row: DeviceWorkRow) -> DeviceWork:
    answer = None
    if row.answer is not None:
        failure = row.answer["failure"]
        answer = WorkAnswer(
            _files(row.answer["files"]), None if failure is None else (failure[0], failure[1]), row.answer["took"]
        )
    return DeviceWork(
        row.id,
        row.job_id,
        row.agent,
        WorkState(row.state),
        row.kind,
        row.request,
        _files(row.files),
        row.lease,
        row.message,
        answer,
        row.worked,
    )
