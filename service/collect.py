"""Takes bytes out of the store that nobody names: of removed files, and of those who died before they recorded them.

Rows go first and bytes later, so at any moment, also after a crash, there are bytes too many and never too few. How
that is kept while others store the same bytes stands in `service.holds`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, final

import fsspec
from sqlalchemy import select

from service.database import ArtifactRow, Database, DeviceWorkRow, now
from service.holds import forget_holds, is_needed, lock_content

_LOG = logging.getLogger(__name__)
_FOLDER: Final = re.compile(r"[0-9a-f]{2}")
_BLOB: Final = re.compile(r"[0-9a-f]{64}")
_PARTIAL: Final = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{8}\.partial")
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
    """Works on any store that fsspec opens. Every method blocks, and may be called from any thread."""

    def __init__(self, database: Database, url: str, grace: float) -> None:
        """Takes nothing yet.

        Args:
            database: Knows what is named.
            url: The fsspec URL of the store.
            grace: Seconds; younger files are left alone, whoever put them there.
        """
        self._database, self._grace = database, timedelta(seconds=grace)
        self._files, self._root = fsspec.core.url_to_fs(url)

    def collect(self) -> Freed:
        """Takes away what nobody names; returns how much that was.

        Raises:
            DatabaseUnavailableError: Nobody can tell what is named. What was taken away until then is.
            OSError: The store cannot be read.
        """
        with self._database.write() as session:
            forget_holds(session)
        self._files.invalidate_cache()
        freed = sum((self._collect_folder(folder) for folder in self._folders()), Freed()) + self._collect_work()
        if freed.files:
            _LOG.info("collected %d files that nobody names, %d bytes", freed.files, freed.size_bytes)
        return freed

    def _folders(self) -> Iterator[str]:
        for path in self._list(self._root):
            name = _name(path)
            if path["type"] == "directory" and _FOLDER.fullmatch(name):
                yield name

    def _collect_folder(self, prefix: str) -> Freed:
        """Takes away what nobody names among the bytes whose SHA-256 begins so."""
        there = self._list(f"{self._root}/{prefix}")
        with self._database.read() as session:
            own = ArtifactRow.sha256.between(prefix, f"{prefix}g")  # "g" comes after all hexadecimal digits
            named = set(session.scalars(select(ArtifactRow.sha256).where(own)))
        freed = Freed()
        for path in there:
            name = _name(path)
            if _PARTIAL.fullmatch(name) and self._older(path, _PARTIAL_GRACE, unknown=False):
                freed += self._take(path)
            elif _BLOB.fullmatch(name) and name not in named and self._older(path, self._grace, unknown=True):
                freed += self._take_unnamed(path, name)
        return freed

    def _take_unnamed(self, path: dict[str, Any], sha256: str) -> Freed:
        # One at a time: whoever stores something waits for no more than one removal.
        with self._database.write() as session:
            lock_content(session)
            return Freed() if is_needed(session, sha256) else self._take(path)

    def _take(self, path: dict[str, Any]) -> Freed:
        try:
            self._files.rm_file(path["name"])
        except FileNotFoundError:
            return Freed()  # another server was quicker
        return Freed(1, int(path["size"] or 0))

    def _collect_work(self) -> Freed:
        """Takes away the files of device work that is no more."""
        freed = Freed()
        for folder in self._list(f"{self._root}/device-work"):
            with self._database.read() as session:
                known = session.scalar(select(DeviceWorkRow.row).where(DeviceWorkRow.id == _name(folder)))
            paths = list(self._files.find(folder["name"], detail=True).values()) if known is None else []
            # Files are stored before their work is queued.
            if known is None and all(self._older(path, self._grace, unknown=False) for path in paths):
                freed += Freed(len(paths), sum(int(path["size"] or 0) for path in paths))
                self._files.rm(folder["name"], recursive=True)
        return freed

    def _list(self, folder: str) -> list[dict[str, Any]]:
        try:
            return list(self._files.ls(folder, detail=True))
        except FileNotFoundError:
            return []

    def _older(self, path: dict[str, Any], grace: timedelta, *, unknown: bool) -> bool:
        """Returns whether a file is older than `grace`; `unknown` where the store does not tell or it is gone."""
        try:
            changed: datetime = self._files.modified(path["name"])
        except FileNotFoundError:
            return False
        except NotImplementedError:
            return unknown
        return now() - (changed if changed.tzinfo else changed.replace(tzinfo=UTC)) >= grace


def _name(path: dict[str, Any]) -> str:
    return str(path["name"]).rstrip("/").rpartition("/")[2]
