"""Where bytes lie: a folder, a bucket, anything that fsspec opens; and what it means when it does not answer.

Three kinds of places differ in how a whole file comes to be there. In a local folder, it is written beside and renamed.
In a store of objects (S3, GCS and the like), it is there once its last part is; there are no folders, and no renaming.
Anything else gets a file under another name, and that is renamed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, final

from fsspec.implementations.local import LocalFileSystem

from service.errors import DiskFullError, StorageSettingError, StorageUnavailableError
from service.storage.disk import FULL_ERRORS
from service.storage.opening import explain, is_ours, one_line, open_files, shown

_LOG = logging.getLogger(__name__)
_MARKER: Final = ".shoal"
_MARK: Final = b"Artifacts of Shoal. Without this file, servers take this place for gone.\n"
PROBE: Final = ".ready-"
"""How the names of files begin that only show whether the place can be written. One is left where a server dies."""

SMALL: Final = 16 << 20
"""Bytes that are held in memory for one call; and the size of the parts that larger files go in."""

_OBJECTS: Final = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_AWAY: Final = "the server's storage does not answer; nothing is lost, try again later"


@dataclass(frozen=True)
class Entry:
    """Something in a folder of the storage.

    Attributes:
        path: Relative to the storage's root.
        folder: Whether it is a folder.
        size: Bytes.
        changed: When it was written last; None where the place does not tell.
    """

    path: str
    folder: bool
    size: int
    changed: datetime | None

    @property
    def name(self) -> str:
        """Returns the last part of the path."""
        return self.path.rpartition("/")[2]


@final
class Storage:
    """One place. Every method blocks, and may be called from any thread. Paths are relative to its root.

    A small file marks the place. Where a folder was unmounted or emptied, or a bucket is another one, it is missing,
    and nothing is read or written there as if all were well.
    """

    def __init__(self, url: str, *, begin: bool = True) -> None:
        """Opens the place; makes the folder if it is missing, but no bucket.

        Args:
            url: The fsspec URL, such as `file:///srv/shoal`, `s3://bucket/folder` or `gs://bucket`.
            begin: Make folder and mark if they are missing; else leave all as it is, and only `probe`.

        Raises:
            StorageSettingError: There is no such place, or it may not be written.
            StorageUnavailableError: It does not answer.
            DiskFullError: There is no room.
        """
        self._shown = shown(url)
        self._protocol = url.partition("://")[0] if "://" in url else "file"
        self._files, root = open_files(url, self._protocol)
        self._root = root.rstrip("/")
        self.folder: Path | None = Path(root) if isinstance(self._files, LocalFileSystem) else None
        self._begun = begin
        if begin:
            self._mark()

    def _mark(self) -> None:
        path = self._at(_MARKER)
        try:
            if self._protocol not in _OBJECTS:
                self._files.makedirs(self._root, exist_ok=True)
            try:
                self._files.info(path)
            except FileNotFoundError:
                self._files.pipe_file(path, _MARK)
        except FileNotFoundError as exc:
            raise StorageSettingError(
                f"storage_url {self._shown}: there is no such place; make it first, or correct the setting"
            ) from exc
        except Exception as exc:
            raise explain(exc, self._shown) from exc

    def check(self) -> None:
        """Makes sure that the place is there, and is this one.

        Raises:
            StorageUnavailableError: It is not.
        """
        try:
            self._files.info(self._at(_MARKER))
        except Exception as exc:
            if is_ours(exc):
                raise
            raise self._unavailable(exc) from exc

    def probe(self) -> None:
        """Writes a few bytes, reads them and deletes them.

        Raises:
            OSError: That did not work; says more than a caller is told.
        """
        path, data = self._at(f"{PROBE}{secrets.token_hex(4)}"), secrets.token_hex(8).encode()
        try:
            if self._begun:
                self._files.info(self._at(_MARKER))
        except FileNotFoundError as exc:
            raise OSError(
                f"{self._shown} has no file {_MARKER} any more: it was emptied, unmounted or replaced; bring it back, "
                "or start the server again to begin with an empty one"
            ) from exc
        try:
            self._files.pipe_file(path, data)
            read = self._files.cat_file(path)
        except BaseException:
            with suppress(Exception):
                self._files.rm_file(path)
            raise
        self._files.rm_file(path)
        if read != data:
            raise OSError(f"{self._shown} does not give back what was written")

    def size(self, path: str) -> int | None:
        """Returns a file's size, None if there is none.

        Raises:
            StorageUnavailableError: Nobody knows.
        """
        try:
            with self.guarded():
                return int(self._files.info(self._at(path))["size"])
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        """Returns the names of the files in a folder, which need not exist.

        Raises:
            StorageUnavailableError: It does not answer.
        """
        try:
            with self.guarded():
                found = self._files.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        return [name for name in (str(path).rstrip("/").rpartition("/")[2] for path in found) if name]

    def entries(self, folder: str, *, deep: bool = False) -> list[Entry]:
        """Returns what is in a folder, which need not exist; only files, and those of folders in it too, if `deep`.

        Raises:
            StorageUnavailableError: It does not answer.
        """
        place = self._at(folder) if folder else self._root
        try:
            with self.guarded():
                found = self._files.find(place, detail=True).values() if deep else self._files.ls(place, detail=True)
        except FileNotFoundError:
            return []
        return [self._entry(info) for info in found if str(info["name"]).rstrip("/") != place]

    def _entry(self, info: dict[str, Any]) -> Entry:
        full = str(info["name"]).rstrip("/")
        changed = info.get("LastModified", info.get("mtime", info.get("updated")))
        if isinstance(changed, int | float):
            changed = datetime.fromtimestamp(changed, UTC)
        if not isinstance(changed, datetime):
            changed = None
        elif changed.tzinfo is None:
            changed = changed.replace(tzinfo=UTC)
        path = full.removeprefix(self._root).lstrip("/")
        return Entry(path, info.get("type") == "directory", int(info.get("size") or 0), changed)

    def open(self, path: str, offset: int = 0) -> Reading:
        """Opens a file for reading.

        Raises:
            FileNotFoundError: There is none, but the place is there.
            StorageUnavailableError: It does not answer.
        """
        with self.guarded():
            stream = self._files.open(self._at(path), "rb")
            stream.seek(offset)
        return Reading(self, stream)

    @contextmanager
    def writing(self, path: str) -> Iterator[IO[bytes]]:
        """Gives a stream for a new file; it is there, whole, if the block ends well, and else it is not there.

        Raises:
            StorageUnavailableError: It does not answer.
            DiskFullError: There is no room.
        """
        target = self._at(path)
        # Looking for the file afterwards, as reading does, would be too late: a folder that is gone would be made anew.
        if self._protocol not in _OBJECTS:
            self.check()
        with self.guarded():
            if self._protocol in _OBJECTS:
                with _object(self._files.open(target, "wb", block_size=SMALL, autocommit=False)) as stream:
                    yield stream
                return
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            partial = f"{target}.{secrets.token_hex(4)}.partial"
            try:
                with self._files.open(partial, "wb") as stream:
                    yield stream
                self._files.mv(partial, target)
            except BaseException:
                with suppress(Exception):
                    self._files.rm_file(partial)
                raise

    def put(self, path: str, data: bytes) -> None:
        """Makes a file of bytes that fit into memory; with a store of objects, that is one request.

        Raises:
            StorageUnavailableError: It does not answer.
            DiskFullError: There is no room.
        """
        if self._protocol in _OBJECTS:
            with self.guarded():
                self._files.pipe_file(self._at(path), data)
            return
        with self.writing(path) as target:
            target.write(data)

    def get(self, path: str, size: int) -> bytes:
        """Returns a file's first `size` bytes, or what there is of them.

        Raises:
            FileNotFoundError: There is none, but the place is there.
            StorageUnavailableError: It does not answer.
        """
        with self.guarded():
            return bytes(self._files.cat_file(self._at(path), start=0, end=size))

    def remove(self, path: str) -> None:
        """Removes a file, if it is there.

        Raises:
            StorageUnavailableError: It does not answer.
        """
        with suppress(FileNotFoundError), self.guarded():
            self._files.rm_file(self._at(path))

    def remove_folder(self, path: str) -> None:
        """Removes a folder with all files in it, if it is there.

        Raises:
            StorageUnavailableError: It does not answer.
        """
        with suppress(FileNotFoundError), self.guarded():
            self._files.rm(self._at(path), recursive=True)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns what the place's library raises into ours.

        Raises:
            StorageUnavailableError: It does not answer, or may not be used.
            DiskFullError: There is no room.
        """
        try:
            yield
        except FileNotFoundError:
            # One file is gone, or all of them.
            self.check()
            raise
        except Exception as exc:
            if is_ours(exc):
                raise
            if isinstance(exc, OSError) and exc.errno in FULL_ERRORS:
                raise DiskFullError(
                    "the disk that holds the artifact folder is full; free some space on the server"
                ) from exc
            raise self._unavailable(exc) from exc

    def _unavailable(self, error: Exception) -> StorageUnavailableError:
        _LOG.warning("%s: %s", self._shown, one_line(error))
        return StorageUnavailableError(_AWAY)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


@final
class Reading:
    """A file that is being read. Not for more than one thread at a time."""

    def __init__(self, storage: Storage, stream: IO[bytes]) -> None:
        """Reads from a stream of the storage's library."""
        self._storage, self._stream = storage, stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, size: int = -1, /) -> bytes:
        """Returns up to `size` bytes, none at the end.

        Raises:
            StorageUnavailableError: It does not answer.
        """
        with self._storage.guarded():
            return self._stream.read(size)

    def close(self) -> None:
        """Lets go of the file. May be called twice."""
        self._stream.close()


@contextmanager
def _object(stream: Any) -> Iterator[IO[bytes]]:
    try:
        yield stream
        stream.close()
        stream.commit()
    except BaseException:
        # Parts that were sent cost money until they are taken back; where that fails, the bucket's own rules do it.
        with suppress(Exception):
            stream.discard()
        stream.closed = True  # or it would send the rest when it is collected
        raise
