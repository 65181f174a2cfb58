"""Takes bytes out of the store that nobody names: of removed files, and of those who died before they recorded them.

Rows go first and bytes later, so at any moment, also after a crash, there are bytes too many and never too few. How
that is kept while others store the same bytes stands in `service.storage.holds`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, final

from sqlalchemy import select

from service.database.clock import now
from service.database.database import Database
from service.database.tables import ArtifactRow, DeviceWorkRow, JobRow
from service.jobs.states import State
from service.resuming import checkpoints
from service.storage.holds import forget_holds, is_needed, lock_content
from service.storage.storage import PROBE, Entry, Storage

_LOG = logging.getLogger(__name__)
_FOLDER: Final = re.compile(r"[0-9a-f]{2}")
_BLOB: Final = re.compile(r"[0-9a-f]{64}")
_PARTIAL: Final = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{8}\.partial")
_WORK: Final = "device-work"
_UNFINISHED: Final = (State.QUEUED, State.RUNNING, State.CANCELLING)
_PARTIAL_GRACE: Final = timedelta(days=1)
"""Half of a file is of use to nobody but the one who writes it, and for no longer than that takes."""


@dataclass(frozen=True)
class Freed:
    """What was taken away."""

    files: int = 0
    size_bytes: int = 0

    def __add__(self, other: Freed) -> Freed:
        return Freed(self.files + other.files, self.size_bytes + other.size_bytes)


@final
class Collector:
    """Works on any storage. Every method blocks, and may be called from any thread."""

    def __init__(self, database: Database, storage: Storage, grace: float) -> None:
        """Takes nothing yet.

        Args:
            database: Knows what is named.
            storage: Where the bytes are.
            grace: Seconds; younger files are left alone, whoever put them there.
        """
        self._database, self._grace = database, timedelta(seconds=grace)
        self._storage = storage

    def collect(self) -> Freed:
        """Takes away what nobody names; returns how much that was.

        Raises:
            DatabaseUnavailableError: Nobody can tell what is named. What was taken away until then is.
            StorageUnavailableError: The storage does not answer.
        """
        with self._database.write() as session:
            forget_holds(session)
        freed = sum((self._collect_folder(folder) for folder in self._folders()), Freed())
        freed += self._collect_work() + self._collect_checkpoints() + self._collect_probes()
        if freed.files:
            _LOG.info("collected %d files that nobody names, %d bytes", freed.files, freed.size_bytes)
        return freed

    def _folders(self) -> Iterator[str]:
        for entry in self._storage.entries(""):
            if entry.folder and _FOLDER.fullmatch(entry.name):
                yield entry.name

    def _collect_folder(self, prefix: str) -> Freed:
        """Takes away what nobody names among the bytes whose SHA-256 begins so."""
        there = self._storage.entries(prefix)
        with self._database.read() as session:
            own = ArtifactRow.sha256.between(prefix, f"{prefix}g")  # "g" comes after all hexadecimal digits
            named = set(session.scalars(select(ArtifactRow.sha256).where(own)))
        freed = Freed()
        for entry in there:
            if _PARTIAL.fullmatch(entry.name) and self._older(entry, _PARTIAL_GRACE, unknown=False):
                freed += self._take(entry)
            unnamed = _BLOB.fullmatch(entry.name) is not None and entry.name not in named
            if unnamed and self._older(entry, self._grace, unknown=True):
                freed += self._take_unnamed(entry)
        return freed

    def _take_unnamed(self, entry: Entry) -> Freed:
        # One at a time: whoever stores something waits for no more than one removal.
        with self._database.write() as session:
            lock_content(session)
            return Freed() if is_needed(session, entry.name) else self._take(entry)

    def _take(self, entry: Entry) -> Freed:
        self._storage.remove(entry.path)
        return Freed(1, entry.size)

    def _collect_work(self) -> Freed:
        """Takes away the files of device work that is no more."""
        freed = Freed()
        for folder in self._storage.entries(_WORK):
            with self._database.read() as session:
                known = session.scalar(select(DeviceWorkRow.row).where(DeviceWorkRow.id == folder.name))
            files = [] if known is not None else self._storage.entries(folder.path, deep=True)
            # Files are stored before their work is queued.
            if known is None and all(self._older(file, self._grace, unknown=False) for file in files):
                freed += Freed(len(files), sum(file.size for file in files))
                self._storage.remove_folder(folder.path)
        return freed

    def _collect_checkpoints(self) -> Freed:
        """Takes away what jobs kept for their next attempt and there is none: whoever ended them died, or was late."""
        freed = Freed()
        for folder in self._storage.entries(checkpoints.FOLDER):
            with self._database.read() as session:
                goes_on = select(JobRow.row).where(JobRow.id == folder.name, JobRow.state.in_(_UNFINISHED))
                wanted = session.scalar(goes_on) is not None
            if not wanted:
                files = self._storage.entries(folder.path, deep=True)
                freed += Freed(len(files), sum(file.size for file in files))
                self._storage.remove_folder(folder.path)
        return freed

    def _collect_probes(self) -> Freed:
        """Takes away what servers wrote to see whether they can, and died."""
        freed = Freed()
        for entry in self._storage.entries(""):
            probe = not entry.folder and entry.name.startswith(PROBE)
            if probe and self._older(entry, _PARTIAL_GRACE, unknown=False):
                freed += self._take(entry)
        return freed

    def _older(self, entry: Entry, grace: timedelta, *, unknown: bool) -> bool:
        """Returns whether a file is older than `grace`; `unknown` where the storage does not tell."""
        return unknown if entry.changed is None else now() - entry.changed >= grace
