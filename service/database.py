"""The database: tables, connections, transactions. SQLite by default, PostgreSQL by configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, final

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Engine,
    ForeignKey,
    Index,
    Integer,
    String,
    create_engine,
    func,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import TypeDecorator

from service import postgres
from service.errors import DatabaseUrlError, StateVersionError
from service.schema import UPGRADABLE, upgrade
from service.sqlite import SqliteFile
from service.troubles import BUSY_SECONDS, translated_errors
from service.usage import Usage

SCHEMA_VERSION = 4

# SQLite numbers rows with a plain INTEGER key only.
_RowNumber = BigInteger().with_variant(Integer, "sqlite")


@final
class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept as naive UTC because SQLite has no time zones."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Aware to naive UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Naive UTC to aware."""
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON}  # noqa: RUF012 (SQLAlchemy wants it so)


@final
class SchemaRow(Base):
    """One row: which version of these tables this is."""

    __tablename__ = "schema_version"
    version: Mapped[int] = mapped_column(primary_key=True)


@final
class JobRow(Base):
    """One job. `row` counts up and orders the list. `runner` is the server that runs it, as long as its lease holds.

    `losses` counts the servers and machines that died with it, `setbacks` the workers that died or found the disk full.
    """

    __tablename__ = "jobs"
    row: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    principal: Mapped[str] = mapped_column(String(63), server_default="local")
    request_id: Mapped[str | None] = mapped_column(String(36), unique=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    spec: Mapped[dict[str, Any]]
    display_name: Mapped[str] = mapped_column(String(256))
    state: Mapped[str] = mapped_column(String(16), index=True)
    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    failure: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    create_time: Mapped[datetime]
    start_time: Mapped[datetime | None]
    end_time: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    losses: Mapped[int] = mapped_column(default=0)
    setbacks: Mapped[int] = mapped_column(default=0, server_default="0")
    last_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    runner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    # A principal's newest jobs are the end of its stretch of this index, however many jobs there are.
    __table_args__ = (Index("ix_jobs_owned", "principal", "row"), {"sqlite_autoincrement": True})


@final
class EventRow(Base):
    """One event of a job: `snapshot` (a Job) or `progress` (a Progress)."""

    __tablename__ = "events"
    job_row: Mapped[int] = mapped_column(ForeignKey("jobs.row", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    time: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(16))
    body: Mapped[dict[str, Any]]


@final
class ArtifactRow(Base):
    """One stored file. Its bytes are under its SHA-256 in the store."""

    __tablename__ = "artifacts"
    row: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    filename: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    principal: Mapped[str] = mapped_column(String(63), server_default="local", index=True)
    create_time: Mapped[datetime]
    __table_args__ = (
        # The same upload of a principal is one artifact. Results are not merged: every job has its own.
        Index(
            "ix_artifacts_owned_content",
            "principal",
            "sha256",
            "kind",
            unique=True,
            sqlite_where=text("kind != 'RESULT'"),
            postgresql_where=text("kind != 'RESULT'"),
        ),
        {"sqlite_autoincrement": True},
    )


@final
class UploadRow(Base):
    """One upload: what was announced, and how much of it is durable. `id` is a key made of principal and upload id."""

    __tablename__ = "uploads"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    principal: Mapped[str] = mapped_column(String(63), server_default="local", index=True)
    kind: Mapped[str] = mapped_column(String(16))
    filename: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    committed_size: Mapped[int] = mapped_column(BigInteger, default=0)
    artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifacts.id"))
    update_time: Mapped[datetime]
    # Who writes: a call that another one took over from, perhaps on another server, must not go on.
    writer: Mapped[str | None] = mapped_column(String(32))


@final
class PieceRow(Base):
    """One durable piece of an upload: `size` bytes from `start` on, at the beginning of the file `name`."""

    __tablename__ = "upload_pieces"
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(160))


@final
class HoldRow(Base):
    """Content that a job under way puts into the store, or finds there, before its artifacts are recorded."""

    __tablename__ = "holds"
    job_row: Mapped[int] = mapped_column(ForeignKey("jobs.row", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)


@final
class TokenRow(Base):
    """One token of a caller. `scopes` are separated by spaces."""

    __tablename__ = "tokens"
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    principal: Mapped[str] = mapped_column(String(63))
    scopes: Mapped[str] = mapped_column(String(200))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    create_time: Mapped[datetime]
    expire_time: Mapped[datetime | None]


@final
class TurnRow(Base):
    """When a principal's turn was, counted in jobs taken from the queue."""

    __tablename__ = "turns"
    principal: Mapped[str] = mapped_column(String(63), primary_key=True)
    turn: Mapped[int] = mapped_column(BigInteger)


@final
class AgentRow(Base):
    """One device agent: who it is, and what it last said of its device."""

    __tablename__ = "agents"
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    create_time: Mapped[datetime]
    session: Mapped[str | None] = mapped_column(String(64))
    device: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    last_seen: Mapped[datetime | None]


@final
class DeviceWorkRow(Base):
    """One piece of work for an agent's device. `row` orders the queue; `lease` counts how often it was given out."""

    __tablename__ = "device_work"
    row: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(160), unique=True)
    job_id: Mapped[str] = mapped_column(String(80), index=True)
    agent: Mapped[str] = mapped_column(String(63), index=True)
    state: Mapped[str] = mapped_column(String(16))
    kind: Mapped[str] = mapped_column(String(16))
    request: Mapped[dict[str, Any]]
    files: Mapped[list[Any]] = mapped_column(JSON)
    lease: Mapped[int] = mapped_column(BigInteger, default=0)
    session: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(String(2000), default="")
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    create_time: Mapped[datetime]
    __table_args__ = ({"sqlite_autoincrement": True},)


@final
class TraceRow(Base):
    """Where a job or a piece of device work stands in a trace, by its name."""

    __tablename__ = "traces"
    subject: Mapped[str] = mapped_column(String(200), primary_key=True)
    traceparent: Mapped[str] = mapped_column(String(64))
    parent_id: Mapped[str] = mapped_column(String(16))


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
            self._prepare()
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
        """Closes all connections, once those that are in use are done with."""
        self._usage.wait(BUSY_SECONDS)
        self._engine.dispose()


_READING: dict[str, dict[str, Any]] = {
    "sqlite": {},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
_CHANGING: dict[str, dict[str, Any]] = {"sqlite": {"shoal_write": True}, "postgresql": {}}


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def clock(session: Session) -> datetime:
    """The present in UTC, by the clock that all servers of a database share; for what one says and another reads."""
    if session.get_bind().dialect.name == "sqlite":
        return now()  # whoever opens the file is on this machine
    present: datetime = session.scalars(select(func.clock_timestamp())).one()
    return present.astimezone(UTC)


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
