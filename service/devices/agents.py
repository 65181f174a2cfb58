"""Who may speak for a device, and what the devices said of themselves."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, final

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.database.clock import now
from service.database.database import Database
from service.database.tables import AgentRow
from service.errors import AgentRefusedError, AlreadyExistsError, InvalidRequestError, NotFoundError, Violation

HEARTBEAT: Final = timedelta(seconds=10)
"""How often an agent says that it lives."""

OFFLINE_AFTER: Final = 3 * HEARTBEAT
"""An agent that was not heard of for this long is taken to be gone."""

PREFIX: Final = "agent/"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_TOKEN_BYTES = 32


@dataclass(frozen=True)
class Agent:
    """One agent.

    Attributes:
        name: Without the prefix that targets have.
        session: Of the process that speaks for it now; None before the first.
        device: What it said of its device, by the field names of the proto's `Device`; None before the first.
        last_seen: When it was last heard of.
    """

    name: str
    session: str | None
    device: Mapping[str, Any] | None
    last_seen: datetime | None

    @property
    def target(self) -> str:
        """What a job puts into `Target.device`."""
        return PREFIX + self.name

    @property
    def online(self) -> bool:
        """Returns whether it was heard of lately."""
        return self.last_seen is not None and now() - self.last_seen < OFFLINE_AFTER

    @property
    def runtimes(self) -> dict[tuple[str, str], str]:
        """Returns the versions of the runtimes that it has, by name and device of its machine."""
        found = (self.device or {}).get("runtimes", [])
        return {
            (str(one.get("name", "")), str(one.get("device") or "cpu")): str(one.get("version", "")) for one in found
        }

    def check_speaker(self, session: str) -> None:
        """Checks that a session is the one that speaks for the agent.

        Raises:
            AgentRefusedError: Another one does, or none yet.
        """
        if self.session is None:
            raise AgentRefusedError(f"no process has registered {self.target} yet; register first")
        if self.session != session:
            raise AgentRefusedError(
                f"another process speaks for {self.target} now: it was started later, with the same token; "
                "run one at a time, or give each a token of its own with `shoal agents add NAME`"
            )


@final
class AgentStore:
    """Agents and their tokens. Every method is one transaction, and may be called from any thread."""

    def __init__(self, database: Database) -> None:
        """Works on an open database."""
        self._database = database

    def add(self, name: str) -> str:
        """Makes an agent known, and returns its token, which is kept nowhere but as a hash.

        Raises:
            InvalidRequestError: The name breaks the rule.
            AlreadyExistsError: There is one of that name.
        """
        if not _NAME.fullmatch(name):
            raise InvalidRequestError([Violation("name", "must be 1 to 63 of [a-z0-9-], starting with a letter")])
        token = f"shoal-agent-{secrets.token_urlsafe(_TOKEN_BYTES)}"
        with self._database.write() as session:
            if session.get(AgentRow, name) is not None:
                raise AlreadyExistsError(
                    "agent", name, f"there is an agent {name!r} already; remove it first to give it another token"
                )
            session.add(AgentRow(name=name, token_hash=_hash(token), create_time=now()))
        return token

    def remove(self, name: str) -> None:
        """Forgets an agent: its token is worth nothing from now on.

        Raises:
            NotFoundError: There is none of that name.
        """
        with self._database.write() as session:
            row = session.get(AgentRow, name)
            if row is None:
                raise NotFoundError("agent", name)
            session.delete(row)

    def all(self) -> list[Agent]:
        """Returns every agent, by name."""
        with self._database.read() as session:
            return [_agent(row) for row in session.scalars(select(AgentRow).order_by(AgentRow.name))]

    def get(self, name: str) -> Agent:
        """Returns one agent.

        Raises:
            NotFoundError: There is none of that name.
        """
        with self._database.read() as session:
            row = session.get(AgentRow, name)
        if row is None:
            raise NotFoundError("device", PREFIX + name)
        return _agent(row)

    def authenticate(self, token: str) -> Agent:
        """Returns whose token this is.

        Raises:
            AgentRefusedError: Nobody's.
        """
        with self._database.read() as session:
            row = session.scalar(select(AgentRow).where(AgentRow.token_hash == _hash(token)))
        if row is None:
            raise AgentRefusedError(
                "no agent has this token; `shoal agents add NAME` on the server's machine makes one"
            )
        return _agent(row)

    def register(self, name: str, session_id: str, device: Mapping[str, Any], goes_on: bool = False) -> Agent:
        """Notes what an agent says of itself; a new session takes over from the one before.

        Args:
            name: The agent.
            session_id: Of the process that says it.
            device: What it says.
            goes_on: Whether the session is no new one.

        Raises:
            NotFoundError: There is no such agent.
            AgentRefusedError: The session is no new one, and another took over from it.
        """
        with self._database.write() as session:
            row = session.get(AgentRow, name)
            if row is None:
                raise NotFoundError("device", PREFIX + name)
            if goes_on:
                _agent(row).check_speaker(session_id)
            row.session, row.device, row.last_seen = session_id, dict(device), now()
            return _agent(row)

    def seen(self, name: str) -> None:
        """Notes that an agent was heard of."""
        with self._database.write() as session:
            row = session.get(AgentRow, name)
            if row is not None:
                row.last_seen = now()


def check_speaker(session: Session, name: str, session_id: str) -> None:
    """Checks, in a transaction, that a session is the one that speaks for an agent.

    Raises:
        AgentRefusedError: It is not, or there is no such agent any more.
    """
    row = session.get(AgentRow, name)
    if row is None:
        raise AgentRefusedError(f"{PREFIX}{name} was removed; `shoal agents add NAME` on the server's machine adds it")
    _agent(row).check_speaker(session_id)


def _agent(row: AgentRow) -> Agent:
    return Agent(row.name, row.session, row.device, row.last_seen)


def _hash(token: str) -> str:
    # Tokens are 256 random bits: there is nothing to guess, so a plain hash is as good as a slow one.
    return hashlib.sha256(token.encode()).hexdigest()
