"""What a job keeps for the attempt after it, mirrored into the artifact storage: the next one may run elsewhere.

Below `checkpoints/{job}/` lie parts, each written once under a name of its own, and `index.json`, which says what they
are parts of and is replaced as a whole. So what can be restored is what the folder held at one moment, or a moment
before. The journal (`service.resuming.journal`) only grows, and so only its new lines are written; other files are
written when they change. Whoever has a later attempt at the job owns the mirror, and an earlier one that lives on
leaves it alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Final, final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from service.errors import StorageUnavailableError
from service.resuming import journal
from service.storage.storage import Storage
from service.waiting import PASSING, set_within

_LOG = logging.getLogger(__name__)

FOLDER: Final = "checkpoints"
INTERVAL_SECONDS: Final = 5.0
"""A mirror is brought up to date this often, and at the end of each phase."""

MARK: Final = "mirror.json"
"""File in a job's folder: the attempt that worked there last."""

_INDEX: Final = "index.json"
_MAX_INDEX: Final = 4 << 20
_MAX_FILES: Final = 2000
_MAX_PARTS: Final = 64
_BLOCK: Final = 1 << 20
_NO_PARTS: tuple[str, ...] = ()
_NAME = rf"^({journal.FILE}|({journal.TRAININGS}|{journal.FITS})/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+\.pt)$"

_Part = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Stored(_Frozen):
    """One file: its parts in order, its size in bytes, and the SHA-256 of the whole."""

    parts: tuple[_Part, ...]
    size: Annotated[int, Field(ge=0)]
    sha256: str


class _Index(_Frozen):
    """What a mirror holds, and the attempt that wrote it."""

    attempt: int = -1
    files: dict[Annotated[str, StringConstraints(pattern=_NAME)], _Stored] = Field(default_factory=dict)


@final
class Checkpoints:
    """The mirrors of all jobs. Every method blocks, and may be called from any thread."""

    def __init__(self, storage: Storage) -> None:
        """Works in a folder of the storage."""
        self._storage = storage

    def mirror(self, job_id: str, attempt: int, folder: Path) -> Mirror:
        """Returns the mirror of one job's folder, for one attempt."""
        return Mirror(self._storage, f"{FOLDER}/{job_id}", attempt, folder)

    def drop(self, job_id: str) -> None:
        """Forgets a job. What cannot be removed now is left behind."""
        try:
            self._storage.remove_folder(f"{FOLDER}/{job_id}")
        except StorageUnavailableError as exc:
            _LOG.warning("the checkpoints of job %s are left in the storage: %s", job_id, exc)


@final
class Mirror:
    """The mirror of one job's folder. Blocks, and may be called from any thread.

    Args:
        storage: Where it is.
        place: The job's place in it.
        attempt: Which attempt at the job this is; each has a larger number than the one before.
        folder: The job's, on this machine; it exists.
    """

    def __init__(self, storage: Storage, place: str, attempt: int, folder: Path) -> None:
        self._storage, self._place, self._attempt, self._folder = storage, place, attempt, folder
        self._known: dict[str, tuple[int, int]] = {}
        self._index = _Index()
        self._over = False
        self._lock = threading.Lock()

    def restore(self) -> None:
        """Makes the folder go on from the mirror, unless it was worked in later than what is mirrored."""
        with self._lock:
            stored = self._read()
            if stored is not None:
                self._index = stored
                if stored.attempt > self._marked():
                    self._bring(stored)
            mark = self._folder / MARK
            mark.unlink(missing_ok=True)
            mark.write_text(str(self._attempt))

    def push(self) -> None:
        """Brings the mirror up to date. Trouble is logged: a mirror that stays behind costs time, and no job."""
        with self._lock:
            try:
                self._push()
            except Exception as exc:  # noqa: BLE001 (every kind of storage has errors of its own)
                _LOG.warning("checkpoints are not mirrored, trying again later: %s", exc)

    def _marked(self) -> int:
        """Returns the attempt that worked in the folder last; -1 where none did."""
        try:
            with _open_plain(self._folder / MARK) as file:
                return int(file.read(20))
        except (OSError, ValueError):
            return -1

    def _bring(self, stored: _Index) -> None:
        (self._folder / journal.FILE).unlink(missing_ok=True)
        for name in (journal.TRAININGS, journal.FITS):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        for name, file in stored.files.items():
            path = self._folder / name
            try:
                self._fetch(file, path)
                self._known[name] = _signature(path)
            except PASSING:
                raise
            except Exception as exc:  # noqa: BLE001 (every kind of storage has errors of its own)
                path.unlink(missing_ok=True)
                _LOG.warning("a checkpoint cannot be had and its work is done again: %s: %s", name, exc)

    def _fetch(self, file: _Stored, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("xb") as target:
            for part in file.parts:
                with self._storage.open(self._part(part)) as source:
                    while block := source.read(_BLOCK):
                        digest.update(block)
                        target.write(block)
        if digest.hexdigest() != file.sha256:
            raise ValueError("it is not what was stored")

    def _push(self) -> None:
        found = dict(self._find())
        if self._over or (found == self._known and self._index.attempt == self._attempt):
            return
        before = self._read() or _Index()
        if before.attempt > self._attempt:
            self._over = True
            _LOG.warning("another attempt at this job writes checkpoints now; this one writes no more")
            return
        stored = {}
        for name in found:
            # A file that goes away meanwhile is not there the next time.
            with suppress(FileNotFoundError):
                stored[name] = self._store(name)
        index = _Index(attempt=self._attempt, files=stored)
        self._write(index)
        self._known, self._index = found, index
        self._remove(_parts(before) - _parts(index))

    def _find(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Yields what is to be mirrored, with what tells a change. Links are not followed: a worker could set them."""
        names = [journal.FILE]
        for part in (journal.TRAININGS, journal.FITS):
            names += [str(path.relative_to(self._folder)) for path in sorted((self._folder / part).glob("*/*.pt"))]
        home = self._folder.resolve()
        for name in names[:_MAX_FILES]:
            path = self._folder / name
            with suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode) and path.resolve() == home / name:
                    yield name, _signature(path)

    def _store(self, name: str) -> _Stored:
        known = self._index.files.get(name)
        path = self._folder / name
        if known is not None and self._known.get(name) == _signature(path):
            return known
        return self._store_lines(path, known) if name == journal.FILE else self._store_whole(path, known)

    def _store_lines(self, path: Path, known: _Stored | None) -> _Stored:
        """Stores a file that grows by lines; one that is half written waits."""
        with _open_plain(path) as file:
            content = file.read(journal.MAX_BYTES + 1)
        content = content[: content.rfind(b"\n") + 1]
        goes_on = known is not None and _digest(content[: known.size]) == known.sha256
        if known is None or not goes_on or len(known.parts) >= _MAX_PARTS:
            parts, start = _NO_PARTS, 0
        else:
            parts, start = known.parts, known.size
        if len(content) > start:
            new = secrets.token_hex(16)
            self._storage.put(self._part(new), content[start:])
            parts = (*parts, new)
        return _Stored(parts=parts, size=len(content), sha256=_digest(content))

    def _store_whole(self, path: Path, known: _Stored | None) -> _Stored:
        with _open_plain(path) as source:
            if known is not None and os.fstat(source.fileno()).st_size == known.size:
                if hashlib.file_digest(source, "sha256").hexdigest() == known.sha256:
                    return known
                source.seek(0)
            digest, size, new = hashlib.sha256(), 0, secrets.token_hex(16)
            with self._storage.writing(self._part(new)) as target:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    size += len(block)
                    target.write(block)
        return _Stored(parts=(new,), size=size, sha256=digest.hexdigest())

    def _read(self) -> _Index | None:
        """Returns the index; None where there is none that can be read."""
        try:
            content = self._storage.get(f"{self._place}/{_INDEX}", _MAX_INDEX + 1)
            return None if len(content) > _MAX_INDEX else _Index.model_validate_json(content)
        except FileNotFoundError:
            return None
        except ValidationError:
            _LOG.warning("the checkpoints at %s cannot be read, and are not used", self._place.rpartition("/")[2])
            return None

    def _write(self, index: _Index) -> None:
        # A file of the storage is there as a whole, or as the one before.
        self._storage.put(f"{self._place}/{_INDEX}", index.model_dump_json().encode())

    def _remove(self, parts: set[str]) -> None:
        for part in parts:
            with suppress(Exception):
                self._storage.remove(self._part(part))

    def _part(self, name: str) -> str:
        return f"{self._place}/parts/{name}"


@final
class Mirroring:
    """Brings a mirror up to date while a job's worker runs. Belongs to one event loop."""

    def __init__(self, mirror: Mirror, interval: float = INTERVAL_SECONDS) -> None:
        """Starts; `finish` has to be called."""
        self._mirror, self._interval = mirror, interval
        self._nudged = asyncio.Event()
        self._phase = ""
        self._task = asyncio.create_task(self._work())

    def entered(self, phase: str) -> None:
        """Says what the job is at; a phase that ended is mirrored at once."""
        if phase != self._phase:
            self._phase = phase
            self._nudged.set()

    async def finish(self, *, last: bool) -> None:
        """Stops; `last` for mirroring what is left, which the next attempt needs."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if last:
            await asyncio.to_thread(self._mirror.push)

    async def _work(self) -> None:
        while True:
            await set_within(self._nudged, self._interval)
            self._nudged.clear()
            await asyncio.to_thread(self._mirror.push)


def _parts(index: _Index) -> set[str]:
    return {part for file in index.files.values() for part in file.parts}


def _signature(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_size, found.st_mtime_ns


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _open_plain(path: Path) -> BufferedReader:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
