"""The tables, one class each, named after what a row is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, final

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Index, Integer, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

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
    worked: Mapped[float] = mapped_column(default=0.0, server_default="0")
    __table_args__ = ({"sqlite_autoincrement": True},)


@final
class TraceRow(Base):
    """Where a job or a piece of device work stands in a trace, by its name."""

    __tablename__ = "traces"
    subject: Mapped[str] = mapped_column(String(200), primary_key=True)
    traceparent: Mapped[str] = mapped_column(String(64))
    parent_id: Mapped[str] = mapped_column(String(16))
