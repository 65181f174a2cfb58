"""How Shoal opens SQLite: one writer at a time, changes that survive a power cut, and never another file in its place.

A database that is deleted while it is open lives on without a name, and takes changes that nobody will ever see again.
So each use of a connection begins with a look whether its file still has its name, and once a database was opened, a
missing file is an error and not the beginning of a new one.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, final
from urllib.parse import quote

from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.exc import InvalidatePoolError

from service.database.troubles import BUSY_SECONDS


@final
class SqliteFile:
    """Watches over the connections of an engine."""

    def __init__(self, engine: Engine) -> None:
        """Sees every connection from now on."""
        name = engine.url.database
        self._path = None if name is None or name in {"", ":memory:"} or name.startswith("file:") else Path(name)
        self._expected = False
        event.listen(engine, "do_connect", self._connect)
        event.listen(engine, "connect", self._tune)
        event.listen(engine, "checkout", self._look)
        event.listen(engine, "begin", _begin)

    def expect(self) -> None:
        """From now on the file has to be there: none is made in its place."""
        self._expected = True

    def _connect(self, _dialect: Dialect, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        if self._path is None or not self._expected:
            return None  # as SQLAlchemy does it
        return sqlite3.connect(f"file:{quote(str(self._path.absolute()))}?mode=rw", *arguments[1:], uri=True, **options)

    def _tune(self, connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # sqlite3's own BEGIN comes too late and is always deferred
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        record.info["file"] = self._identity()

    def _look(self, _connection: sqlite3.Connection, record: Any, _proxy: Any) -> None:
        if record.info["file"] != self._identity():
            raise InvalidatePoolError("another file has taken the place of the database")

    def _identity(self) -> tuple[int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _begin(connection: Connection) -> None:
    # A read transaction that turns into a write one fails at once when somebody else wrote; so take the lock first.
    writing = connection.get_execution_options().get("shoal_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
