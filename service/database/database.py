"""One database: connections, transactions. SQLite by default, PostgreSQL by configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

from sqlalchemy import Engine, create_engine, inspect, select, update
from sqlalchemy.orm import Session

from service.database import postgres
from service.database.schema import UPGRADABLE, upgrade
from service.database.sqlite import SqliteFile
from service.database.tables import Base, SchemaRow
from service.database.troubles import BUSY_SECONDS, translated_errors
from service.database.usage import Usage
from service.errors import DatabaseUrlError, StateVersionError

SCHEMA_VERSION = 5


@final
class Database:
    """Connections to one database. Every method may be called from any thread."""

    def __init__(self, url: str, *, prepare: bool = True) -> None:
        """Opens it, creating the tables if there are none.

        Args:
            url: SQLAlchemy URL, of SQLite or PostgreSQL.
            prepare: Make or upgrade the tables. Without, the database has to be there, and is taken as it is.

        Raises:
            DatabaseUrlError: It is of neither, or its driver is missing.
            StateVersionError: The tables were made by another version.
            DiskFullError: There is no room.
            DatabaseUnavailableError: It cannot be opened, or does not answer.
        """
        self._engine = _open(url)
        file = SqliteFile(self._engine) if self._engine.dialect.name == "sqlite" else None
        self._usage = Usage()
        if prepare:
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise
        if file is not None:
            file.expect()

    def version(self) -> int | None:
        """Returns which version of the tables it holds; None where it holds none."""
        with self.read() as session:
            if not inspect(session.connection()).has_table(SchemaRow.__tablename__):
                return None
            return session.scalar(select(SchemaRow.version))

    def _prepare(self) -> None:
        with self.write() as session:
            Base.metadata.create_all(session.connection())
            row = session.scalar(select(SchemaRow))
            if row is None:
                session.add(SchemaRow(version=SCHEMA_VERSION))
            elif row.version in UPGRADABLE:
                upgrade(session.connection(), Base.metadata)
                session.execute(update(SchemaRow).values(version=SCHEMA_VERSION))
            elif row.version != SCHEMA_VERSION:
                raise StateVersionError(
                    f"the database has schema version {row.version} and this Shoal needs {SCHEMA_VERSION}; "
                    "use the Shoal that wrote it, or another state folder"
                )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent view."""
        with self._transaction(_READING[self._engine.dialect.name]) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction that is alone of its kind from its first statement on; an exception rolls it back."""
        with self._transaction({"shoal_write": True}) as session:
            yield session

    @contextmanager
    def change(self) -> Iterator[Session]:
        """One transaction beside those of `write`, for statements that are right whatever others do meanwhile.

        Such as an UPDATE that checks in its WHERE what it relies on. It need not wait for others where the database can
        do without; SQLite cannot.
        """
        with self._transaction(_CHANGING[self._engine.dialect.name]) as session:
            yield session

    @contextmanager
    def _transaction(self, options: dict[str, Any]) -> Iterator[Session]:
        engine = self._engine.execution_options(**options)
        with (
            self._usage.using(),
            translated_errors(),
            Session(engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    def close(self) -> None:
        """Closes all connections, once those that are in use are done with; no more can be had."""
        self._usage.close(BUSY_SECONDS)
        self._engine.dispose()


_READING: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
_CHANGING: dict[str, dict[str, Any]] = {"sqlite": {"shoal_write": True}, "postgresql": {}}


def _compact_json(value: object) -> str:
    import json

    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _open(url: str) -> Engine:
    kind = url.partition(":")[0].partition("+")[0]
    if kind in postgres.SCHEMES:
        return postgres.open_postgres(url, json_serializer=_compact_json)
    if kind != "sqlite":
        raise DatabaseUrlError(f"the URL of a database starts with sqlite:/// or postgresql://, not with {kind[:40]!r}")
    return create_engine(url, json_serializer=_compact_json)
