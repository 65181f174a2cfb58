"""The bytes of device work, by piece, side and place, in the artifacts' storage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Literal, final

from deploy.digest import file_digest
from service.devices.work import StoredFile
from service.storage.disk import disk_errors
from service.storage.storage import Reading, Storage

Side = Literal["in", "out"]

_BLOCK: Final = 1 << 20
_FOLDER: Final = "device-work"


@final
class WorkFiles:
    """Files of pieces of work. Every method blocks, and may be called from any thread."""

    def __init__(self, place: str | Storage) -> None:
        """Works below `device-work` in the storage, or in what its fsspec URL names."""
        self._storage = Storage(place) if isinstance(place, str) else place

    def put(self, work_id: str, side: Side, place: int, source: Path) -> StoredFile:
        """Copies a local file in, and returns what it is.

        Raises:
            DiskFullError: There is no room.
            StorageUnavailableError: The storage does not answer.
        """
        with self._storage.writing(_path(work_id, side, place)) as target, source.open("rb") as stream:
            shutil.copyfileobj(stream, target, _BLOCK)
        return StoredFile(source.name, source.stat().st_size, file_digest(source))

    def open(self, work_id: str, side: Side, place: int, offset: int = 0) -> Reading:
        """Opens a file for reading at an offset; to be closed by the caller.

        Raises:
            FileNotFoundError: It is gone.
            StorageUnavailableError: The storage does not answer.
        """
        return self._storage.open(_path(work_id, side, place), offset)

    def fetch(self, work_id: str, side: Side, place: int, to: Path) -> None:
        """Copies a file out.

        Raises:
            FileNotFoundError: It is gone.
            DiskFullError: There is no room.
            StorageUnavailableError: The storage does not answer.
        """
        with self.open(work_id, side, place) as stream, disk_errors("the job's folder"), to.open("wb") as copy:
            shutil.copyfileobj(stream, copy, _BLOCK)

    def drop(self, work_id: str) -> None:
        """Forgets the files of a piece of work.

        Raises:
            StorageUnavailableError: The storage does not answer.
        """
        self._storage.remove_folder(f"{_FOLDER}/{work_id}")


def _path(work_id: str, side: Side, place: int) -> str:
    return f"{_FOLDER}/{work_id}/{side}/{place}"
