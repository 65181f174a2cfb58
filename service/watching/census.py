"""How many there are, as the database and the disk tell now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.database.clock import now
from service.database.database import Database
from service.database.tables import DeviceWorkRow, JobRow
from service.devices.agents import AgentStore
from service.devices.work import WorkState, WorkStore
from service.jobs.states import State


@dataclass(frozen=True)
class Counts:
    """What there is.

    Attributes:
        jobs: By state, all of them.
        oldest: Seconds since the oldest queued job was created; 0 where none is.
        devices: Agents' devices by `idle`, `busy`, `offline`.
        work: Pieces of device work by state, all of them.
        free_bytes: Of the disk that holds the state folder.
    """

    jobs: Mapping[str, int]
    oldest: float
    devices: Mapping[str, int]
    work: Mapping[str, int]
    free_bytes: int


@final
class Census:
    """Counts. May be called from any thread."""

    def __init__(self, database: Database, folder: Path) -> None:
        """Counts nothing yet."""
        self._database, self._agents, self._folder = database, AgentStore(database), folder

    def take(self) -> Counts:
        """Returns what there is now."""
        with self._database.read() as session:
            jobs = _by_state(session, JobRow.state)
            work = _by_state(session, DeviceWorkRow.state)
            first = session.scalar(select(func.min(JobRow.create_time)).where(JobRow.state == State.QUEUED))
        oldest = 0.0 if first is None else max(0.0, (now() - first).total_seconds())
        devices = self._devices()
        free = shutil.disk_usage(self._folder).free
        return Counts(
            {state: jobs.get(state, 0) for state in State},
            oldest,
            devices,
            {state: work.get(state, 0) for state in WorkState},
            free,
        )

    def _devices(self) -> dict[str, int]:
        queues = WorkStore(self._database).waiting()
        found = dict.fromkeys(("idle", "busy", "offline"), 0)
        for agent in self._agents.all():
            _, working = queues.get(agent.name, (0, 0))
            found["offline" if not agent.online else "busy" if working else "idle"] += 1
        return found


def _by_state(session: Session, column: InstrumentedAttribute[str]) -> dict[str, int]:
    return {state: count for state, count in session.execute(select(column, func.count()).group_by(column))}  # noqa: C416 (rows are tuples to read, and not to mypy)
