"""What a batch has done, in a file that survives it: one JSON object a line, synced as it is written.

`job`: a job was created for an identity. `outcome`: what came of it. `published`: a registry holds the result.
`hash`: what a stamp's files amount to. The last line of a kind and key counts; one cut short by a crash is passed over.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

from pydantic import ValidationError

from service.batch.outcome import ModelOutcome
from service.registries import RegistryError

FILENAME: Final = "batch.jsonl"


@dataclass(frozen=True)
class Known:
    """What is known of one piece of work.

    Attributes:
        job: The last job that was created for it; empty where there is none.
        attempt: How many jobs for it have failed.
        outcome: What came of it; None before it ended.
    """

    job: str = ""
    attempt: int = 0
    outcome: ModelOutcome | None = None


@final
class Ledger:
    """The file, and what it says. Every method may be called from any thread. Use it as a context manager."""

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Reads the ledger of a folder, if there is one.

        Args:
            folder: The batch's.
            read_only: Write nothing, and do not even make the folder.

        Raises:
            RegistryError: Another batch is at work in the folder.
        """
        self._path = folder / FILENAME
        self._lock = threading.Lock()
        self._records: dict[tuple[str, ...], dict[str, Any]] = {}
        self._file: int | None = None
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = _opened(self._path)
        self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def work(self, identity: str) -> Known:
        """Returns what is known of a piece of work."""
        with self._lock:
            job = self._records.get(("job", identity), {})
            ended = self._records.get(("outcome", identity), {})
        outcome = _outcome(ended.get("outcome"))
        attempt = max(int(job.get("attempt", 0)), int(ended.get("attempt", 0)))
        current = outcome is not None and ended.get("attempt") == attempt
        return Known(str(job.get("job", "")), attempt, outcome if current else None)

    def published(self, identity: str, place: str) -> str | None:
        """Returns where a registry holds the result for one of its models; None where it was not written."""
        with self._lock:
            record = self._records.get(("published", identity, place))
        return None if record is None else str(record["where"])

    def content(self, stamp: str) -> tuple[str, int] | None:
        """Returns SHA-256 and size of the files that a stamp stands for."""
        with self._lock:
            record = self._records.get(("hash", stamp)) if stamp else None
        return None if record is None else (str(record["sha256"]), int(record["size"]))

    def note_job(self, identity: str, attempt: int, job: str, server: str) -> None:
        """Writes that a job was created."""
        self._write({"kind": "job", "identity": identity, "attempt": attempt, "job": job, "server": server})

    def note_outcome(self, identity: str, attempt: int, outcome: ModelOutcome) -> None:
        """Writes what came of a job."""
        body = outcome.model_dump(mode="json", exclude_defaults=True)
        self._write({"kind": "outcome", "identity": identity, "attempt": attempt, "outcome": body})

    def note_published(self, identity: str, place: str, where: str) -> None:
        """Writes that a registry holds the result."""
        self._write({"kind": "published", "identity": identity, "place": place, "where": where})

    def note_content(self, stamp: str, sha256: str, size: int) -> None:
        """Writes what a stamp's files amount to."""
        if stamp:
            self._write({"kind": "hash", "stamp": stamp, "sha256": sha256, "size": size})

    def _write(self, record: dict[str, Any]) -> None:
        if self._file is None:
            return
        line = json.dumps({**record, "time": datetime.now(UTC).isoformat(timespec="seconds")})
        with self._lock:
            os.write(self._file, line.encode() + b"\n")
            os.fsync(self._file)
            self._keep(record)

    def _read(self) -> None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        if content and not content.endswith(b"\n") and self._file is not None:
            os.write(self._file, b"\n")  # what was cut short must not swallow the next line
        for line in content.splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                self._keep(record)

    def _keep(self, record: dict[str, Any]) -> None:
        names = {"job": ("identity",), "outcome": ("identity",), "published": ("identity", "place"), "hash": ("stamp",)}
        kind = str(record.get("kind"))
        if kind in names and all(name in record for name in names[kind]):
            self._records[(kind, *(str(record[name]) for name in names[kind]))] = record


def _opened(path: Path) -> int:
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(number)
        raise RegistryError(
            f"another `shoal batch` is at work in {path.parent}; wait for it, or give this one another --out"
        ) from exc
    return number


def _outcome(body: Any) -> ModelOutcome | None:
    try:
        return ModelOutcome.model_validate(body)
    except ValidationError:
        return None
