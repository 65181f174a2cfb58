"""What databases raise, told apart: full, locked, out of reach. What is a mistake of ours stays as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from service.database import postgres
from service.errors import DatabaseBusyError, DatabaseUnavailableError, DiskFullError, ServiceError

BUSY_SECONDS: Final = 15.0

_LOCKED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_AWAY: Final = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOLFS,
    }
)
_NO_TABLE: Final = "no such table"
# The shared index beside the file cannot be made larger.
_SHM_SIZE: Final = 4874


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns a full disk, a lock that is not released and a database that is gone into ours."""
    try:
        yield
    except PoolTimeoutError as exc:
        raise DatabaseBusyError("all connections to the database are in use; try again") from exc
    except DBAPIError as exc:
        found = _translated(exc)
        if found is None:
            raise
        raise found from exc


def _translated(error: DBAPIError) -> ServiceError | None:
    if isinstance(error, IntegrityError):
        return None
    if isinstance(error.orig, sqlite3.Error):
        return _of_sqlite(error.orig)
    return postgres.translate(error)


def _of_sqlite(error: sqlite3.Error) -> ServiceError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    if code == _SHM_SIZE or code & 0xFF == sqlite3.SQLITE_FULL:
        return DiskFullError("the disk that holds the database is full; free some space and try again")
    if code & 0xFF in _LOCKED:
        return DatabaseBusyError(f"the database was locked for {BUSY_SECONDS:.0f} s; try again")
    # Tables do not vanish from a database; another file has taken its place.
    if code & 0xFF in _AWAY or _NO_TABLE in str(error):
        return DatabaseUnavailableError(
            f"the database cannot be used now: {error} ({error.sqlite_errorname}); try again once that is mended"
        )
    return None
