"""Operator latencies that were measured before, in a SQLite file that several processes may use at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

from deploy.errors import CacheError

_VERSION = 1
_WAIT_SECONDS = 30.0
_CONTEXT = ("device", "runtime", "version", "precision", "threads", "batch")
_SCHEMA = (
    "DROP TABLE IF EXISTS latencies",
    "DROP TABLE IF EXISTS anchors",
    f"""CREATE TABLE latencies (
        device TEXT, runtime TEXT, version TEXT, precision TEXT, threads INTEGER, batch INTEGER,
        key TEXT, relative REAL NOT NULL, measured_at TEXT NOT NULL, PRIMARY KEY ({", ".join(_CONTEXT)}, key))""",
    f"""CREATE TABLE anchors (
        device TEXT, runtime TEXT, version TEXT, precision TEXT, threads INTEGER, batch INTEGER,
        seconds REAL NOT NULL, PRIMARY KEY ({", ".join(_CONTEXT)}))""",
)
_WHERE = " AND ".join(f"{column} = ?" for column in _CONTEXT)


@dataclass(frozen=True)
class Context:
    """What must be equal for a latency to be used again.

    Attributes:
        device: `Device.fingerprint`.
        runtime: Registry name.
        version: The runtime library's version.
        precision: E.g. `float32`.
        threads: Threads inside one operator.
        batch: Samples per run.
    """

    device: str
    runtime: str
    version: str
    precision: str
    threads: int
    batch: int


@dataclass(frozen=True)
class CacheEntry:
    """One latency in the cache.

    Attributes:
        context: Where it holds.
        key: The operator's signature.
        seconds: The latency, at the speed the machine had when it was last measured on.
        measured_at: When, ISO 8601 in UTC.
    """

    context: Context
    key: str
    seconds: float
    measured_at: str


class LatencyCache:
    """Latencies by context and operator, relative to an anchor: an operator that is timed beside every measurement.

    A machine is fast on one day and slow on another. What was measured on both is only comparable relative to something
    that was measured on both.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it.

        Raises:
            CacheError: If it cannot be opened, or is something else.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            msg = f"cannot make the folder of the latency cache '{path}': {exc.strerror}"
            raise CacheError(msg) from exc
        with self._open() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            # Locked before the version is read: another process may be making the tables at this moment.
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={_VERSION}")

    def find(self, context: Context, keys: Sequence[str]) -> dict[str, float]:
        """Returns the relative latencies of those `keys` that are known."""
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT key, relative FROM latencies WHERE {_WHERE}",  # noqa: S608  column names are constants
                astuple(context),
            )
            wanted = set(keys)
            return {key: relative for key, relative in rows if key in wanted}

    def anchor(self, context: Context) -> float | None:
        """Returns the anchor's seconds when it was last measured, or None."""
        with self._open() as connection:
            row = connection.execute(
                f"SELECT seconds FROM anchors WHERE {_WHERE}",  # noqa: S608  column names are constants
                astuple(context),
            ).fetchone()
        return None if row is None else float(row[0])

    def store(self, context: Context, relative: Mapping[str, float], anchor: float) -> None:
        """Keeps latencies, and the anchor's seconds."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows = [(*astuple(context), key, value, now) for key, value in relative.items()]
        with self._open() as connection:
            connection.executemany("INSERT OR REPLACE INTO latencies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            connection.execute(
                "INSERT OR REPLACE INTO anchors VALUES (?, ?, ?, ?, ?, ?, ?)", (*astuple(context), anchor)
            )

    def entries(self) -> tuple[CacheEntry, ...]:
        """Returns everything in the cache, in the order of device, runtime and key."""
        columns = ", ".join(f"l.{column}" for column in _CONTEXT)
        same = ", ".join(_CONTEXT)
        query = (
            f"SELECT {columns}, l.key, l.relative * a.seconds, l.measured_at "  # noqa: S608  constants
            f"FROM latencies l JOIN anchors a USING ({same}) ORDER BY {columns}, l.key"
        )
        with self._open() as connection:
            rows = connection.execute(query).fetchall()
        return tuple(CacheEntry(Context(*row[:6]), *row[6:]) for row in rows)

    def clear(self) -> int:
        """Forgets everything; returns how many latencies were forgotten."""
        with self._open() as connection:
            count = connection.execute("DELETE FROM latencies").rowcount
            connection.execute("DELETE FROM anchors")
        return count

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS)
            try:
                with connection:
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as exc:
            msg = f"the latency cache '{self._path}' cannot be used ({exc}); it may be deleted, it only saves time"
            raise CacheError(msg) from exc


def list_cache(path: Path) -> tuple[CacheEntry, ...]:
    """Returns everything in the cache at `path`; nothing if there is none.

    Raises:
        CacheError: If it cannot be read.
    """
    return LatencyCache(path).entries() if path.exists() else ()


def clear_cache(path: Path) -> int:
    """Forgets everything in the cache at `path`; returns how many latencies were forgotten.

    Raises:
        CacheError: If it cannot be written.
    """
    return LatencyCache(path).clear() if path.exists() else 0
