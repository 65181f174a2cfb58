"""PostgreSQL as the database of several servers: connections, the lock of writers, and what its errors mean.

SQLite has one writer at a time, and all that reads first and writes then relies on it: quotas, the queue, turns, the
leases of device work. The same is had here from an advisory lock, which `Database.write` takes first. Each statement
sees what was committed before it (READ COMMITTED), so what holds the lock sees all that was written under it. What is
right in a single statement, whatever others do meanwhile, does without: `Database.change`.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from service.errors import DatabaseBusyError, DatabaseUnavailableError, DatabaseUrlError, DiskFullError, ServiceError

_LOG = logging.getLogger(__name__)

SCHEMES: Final = frozenset({"postgres", "postgresql"})
"""What the URL of such a database begins with."""

LOCK_SECONDS: Final = 15.0
"""How long a writer waits for the others."""

_STALL_SECONDS: Final = 10.0
"""A transaction whose server does nothing for so long is rolled back: one that hangs must not hold up the others."""

_SILENCE_SECONDS: Final = 15
"""A connection whose other end says nothing for so long is given up, on both sides."""

_WRITERS: Final = 0x73686F616C  # "shoal": advisory locks of a database are numbers that its users agree on
_POOLED: Final = 4
_MOST: Final = 32

_AWAY: Final = ("08", "57P", "25006", "25P03", "53300")
_BUSY: Final = ("40", "55P03", "57014")
_FULL: Final = ("53100",)


def open_postgres(url: str, **options: Any) -> Engine:
    """Returns connections to a database; none is made yet.

    Args:
        url: `postgresql://...`, with or without the name of a driver.
        **options: For `create_engine`.

    Raises:
        DatabaseUrlError: The URL is none, or the driver is not installed.
    """
    try:
        engine = create_engine(
            make_url(_in_full(url)),
            pool_pre_ping=True,
            pool_size=_POOLED,
            max_overflow=_MOST - _POOLED,
            pool_timeout=LOCK_SECONDS,
            connect_args=_connect_arguments(),
            **options,
        )
    except ArgumentError as exc:
        raise DatabaseUrlError("the URL of the database is none; try postgresql://USER@HOST:5432/NAME") from exc
    except ModuleNotFoundError as exc:
        raise DatabaseUrlError(
            f"the database is PostgreSQL, which needs {exc.name}, and that is not installed; install shoal[postgres]"
        ) from exc
    event.listen(engine, "begin", _begin)
    return engine


def translate(error: DBAPIError) -> ServiceError | None:
    """Returns what an error of the driver means to us; None where it is nobody's but ours."""
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # Without a state nothing came from the database: it cannot be reached, or the connection broke.
        away = error.connection_invalidated or type(error.orig).__name__ in {"OperationalError", "InterfaceError"}
        if away:
            _LOG.warning("the database cannot be reached: %s", str(error.orig).partition("\n")[0])
        return _away() if away else None
    if state.startswith(_FULL):
        return DiskFullError("the disk that holds the database is full; free some space and try again")
    if state.startswith(_BUSY):
        return DatabaseBusyError(f"the database was busy for {LOCK_SECONDS:.0f} s; try again")
    return _away() if state.startswith(_AWAY) else None


def _away() -> DatabaseUnavailableError:
    # The driver's own words name hosts and users: they are for the log only.
    return DatabaseUnavailableError("the database cannot be reached; try again; the server's log says more")


def _in_full(url: str) -> str:
    """Returns a URL with the driver that we test with, where it names none."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in SCHEMES else url


def _connect_arguments() -> dict[str, Any]:
    server_side = {
        "lock_timeout": round(LOCK_SECONDS * 1000),
        "idle_in_transaction_session_timeout": round(_STALL_SECONDS * 1000),
        "tcp_keepalives_idle": _SILENCE_SECONDS // 3,
        "tcp_keepalives_interval": _SILENCE_SECONDS // 3,
        "tcp_keepalives_count": 2,
    }
    return {
        "connect_timeout": 5,
        "keepalives_idle": _SILENCE_SECONDS // 3,
        "keepalives_interval": _SILENCE_SECONDS // 3,
        "keepalives_count": 2,
        "tcp_user_timeout": _SILENCE_SECONDS * 1000,
        "application_name": "shoal",
        "options": " ".join(f"-c {name}={value}" for name, value in server_side.items()),
    }


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("shoal_write", False):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")
