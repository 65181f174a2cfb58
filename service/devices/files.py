"""The bytes of device work, by piece, side and place, in the artifact store's folder (anything that fsspec opens)."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Literal, final

import fsspec

from service.artifacts import file_digest
from service.devices.work import StoredFile
from service.disk import disk_errors

Side = Literal["in", "out"]

_BLOCK: Final = 1 << 20


@final
class WorkFiles:
    """Files of pieces of work. Every method blocks, and may be called from any thread."""

    def __init__(self, url: str) -> None:
        """Works below `device-work` in the folder at the fsspec URL."""
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = f"{root}/device-work"

    def put(self, work_id: str, side: Side, place: int, source: Path) -> StoredFile:
        """Copies a local file in, and returns what it is.

        Raises:
            DiskFullError: There is no room.
        """
        target = self._path(work_id, side, place)
        with disk_errors("the folder of device work"):
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            partial = f"{target}.{secrets.token_hex(4)}.partial"
            self._files.put_file(str(source), partial)
            self._files.mv(partial, target)
        return StoredFile(source.name, source.stat().st_size, file_digest(source))

    @contextmanager
    def open(self, work_id: str, side: Side, place: int, offset: int = 0) -> Iterator[IO[bytes]]:
        """Opens a file for reading at an offset.

        Raises:
            FileNotFoundError: It is gone.
        """
        with self._files.open(self._path(work_id, side, place), "rb") as stream:
            stream.seek(offset)
            yield stream

    def fetch(self, work_id: str, side: Side, place: int, to: Path) -> None:
        """Copies a file out.

        Raises:
            FileNotFoundError: It is gone.
            DiskFullError: There is no room.
        """
        with self.open(work_id, side, place) as stream, disk_errors("the job's folder"), to.open("wb") as copy:
            shutil.copyfileobj(stream, copy, _BLOCK)

    def drop(self, work_id: str) -> None:
        """Forgets the files of a piece of work."""
        folder = f"{self._root}/{work_id}"
        if self._files.exists(folder):
            self._files.rm(folder, recursive=True)

    def _path(self, work_id: str, side: Side, place: int) -> str:
        return f"{self._root}/{work_id}/{side}/{place}"
