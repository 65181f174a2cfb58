"""What time it is: here, and for all servers of a database."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def clock(session: Session) -> datetime:
    """The present in UTC, by the clock that all servers of a database share; for what one says and another reads."""
    if session.get_bind().dialect.name == "sqlite":
        return now()  # whoever opens the file is on this machine
    present: datetime = session.scalars(select(func.clock_timestamp())).one()
    return present.astimezone(UTC)
