"""What a job has found out so far, in its folder: a worker that dies leaves it to the next one.

One JSON object a line, appended and synced: who writes, values under keys (`compressors.memory.Memory`), and how long
each phase has taken. A line that was torn by the death of its writer, and whatever follows a line that cannot be read,
is cut off. What is missing is found out again, so nothing in here is needed to be right, only to be quick.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias, final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service.storage.disk import FULL_ERRORS

_LOG = logging.getLogger(__name__)

FILE: Final = "journal.jsonl"
TRAININGS: Final = "tuning"
"""Folder, in a job's own, of its trainings' checkpoints."""
FITS: Final = "fits"
"""Folder, in a job's own, of the weights that were fitted."""

MAX_BYTES: Final = 32 << 20
"""A journal does not grow beyond this, and a larger one is not read."""

_CLOCK_SECONDS: Final = 1.0
_CLOCK_SHARE: Final = 200
"""The clock is noted once a second, and in long jobs once in this part of the time so far."""

_Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Header(_Line):
    type: Literal["header"] = "header"
    writer: str


class _Value(_Line):
    type: Literal["value"] = "value"
    key: Annotated[str, Field(max_length=200)]
    value: Any


class _Clock(_Line):
    type: Literal["clock"] = "clock"
    seconds: Annotated[dict[str, _Seconds], Field(max_length=40)]


_LINE: TypeAdapter[_Header | _Value | _Clock] = TypeAdapter(
    Annotated[_Header | _Value | _Clock, Field(discriminator="type")]
)


@dataclass(frozen=True)
class Kept:
    """What a journal holds.

    Attributes:
        writer: Who wrote it.
        values: By key.
        seconds: How long each phase had taken when it was last noted.
        size: Bytes that can be read; what follows is damaged.
    """

    writer: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    size: int = 0

    @property
    def spent(self) -> float:
        """Seconds of the job's time limit that are gone."""
        return sum(self.seconds.values())


def read_journal(folder: Path) -> Kept:
    """Returns what the journal of the job in a folder holds; nothing where there is none that can be read."""
    path = folder / FILE
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
            return Kept()
        content = path.read_bytes()
    except OSError:
        return Kept()
    return _parse(content)


def _parse(content: bytes) -> Kept:
    writer, size = "", 0
    values: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    for raw in content.splitlines(keepends=True):
        line = _read_line(raw)
        # Only the first line says who wrote all of them.
        if line is None or isinstance(line, _Header) != (size == 0):
            break
        size += len(raw)
        match line:
            case _Header():
                writer = line.writer
            case _Value():
                values[line.key] = line.value
            case _Clock():
                seconds = line.seconds
    return Kept(writer, values, seconds, size)


def _read_line(raw: bytes) -> _Header | _Value | _Clock | None:
    if not raw.endswith(b"\n"):
        return None
    try:
        return _LINE.validate_python(json.loads(raw))
    except (ValidationError, ValueError, RecursionError):
        return None


Progress: TypeAlias = "tuple[int, tuple[tuple[str, int, int], ...]]"


def work_kept(folder: Path) -> Progress:
    """Returns something that differs once more work of the job in a folder has been kept."""
    checkpoints = []
    for path in sorted(path for part in (TRAININGS, FITS) for path in (folder / part).glob("*/*.pt")):
        found = path.lstat()
        checkpoints.append((str(path.relative_to(folder)), found.st_mtime_ns, found.st_size))
    return len(read_journal(folder).values), tuple(checkpoints)


@final
class Journal:
    """The journal of a job under way (`compressors.memory.Memory`). One writer at a time.

    Args:
        folder: The job's; it exists.
        writer: What values depend on besides their keys: program, versions, machine, job. Those of another writer are
            forgotten; the time that he took is not.
    """

    def __init__(self, folder: Path, writer: str) -> None:
        self._path = folder / FILE
        self._before = read_journal(folder)
        self._values: dict[str, Any] = {}
        self._size = self._before.size
        self._noted = self._before.spent
        self._writable = True
        self._unwritten = b""
        if self._before.writer == writer:
            self._values.update(self._before.values)
            self._cut(self._size)
        else:
            self._cut(0)
            self._write(_Header(writer=writer))
            if self._before.seconds:
                self._write(_Clock(seconds=dict(self._before.seconds)))

    @property
    def before(self) -> Kept:
        """What earlier attempts left."""
        return self._before

    def recall(self, key: str) -> Any:
        """Returns what was kept under the key; None where nothing was."""
        return self._values.get(key)

    def keep(self, key: str, value: Any) -> None:
        """Keeps a value."""
        self._values[key] = value
        self._write(_Value(key=key, value=value))

    def clock(self, seconds: Mapping[str, float]) -> None:
        """Notes how long each phase has taken so far, in all attempts together; once in a while."""
        spent = sum(seconds.values())
        if spent - self._noted >= max(_CLOCK_SECONDS, spent / _CLOCK_SHARE):
            self._noted = spent
            self._write(_Clock(seconds=dict(seconds)))

    def _cut(self, size: int) -> None:
        """Cuts the file off behind what can be read."""
        self._size = size
        try:
            if self._path.is_symlink() or not self._path.is_file():
                self._path.unlink(missing_ok=True)
            elif self._path.stat().st_size > size:
                os.truncate(self._path, size)
        except OSError as exc:
            self._give_up(exc)

    def _write(self, line: _Line) -> None:
        data = self._unwritten + json.dumps(line.model_dump()).encode() + b"\n"
        if not self._writable or self._size + len(data) > MAX_BYTES:
            return
        try:
            self._append(data)
        except OSError as exc:
            self._put_off(data, exc)
            return
        self._unwritten = b""
        self._size += len(data)

    def _append(self, data: bytes) -> None:
        with self._path.open("ab", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())

    def _put_off(self, data: bytes, error: OSError) -> None:
        """Takes back what was written in part; on a disk that is full, to be written with the next line."""
        if error.errno not in FULL_ERRORS:
            self._give_up(error)
            return
        if not self._unwritten:
            _LOG.warning("the disk is full: what this job finds out is not kept until there is room again")
        self._unwritten = data
        self._cut(self._size)

    def _give_up(self, error: OSError) -> None:
        # Half a line may be there, and nothing can be appended to it; the job itself goes on.
        self._writable = False
        _LOG.warning("what this job finds out from now on is not kept, should it be interrupted: %s", error)
