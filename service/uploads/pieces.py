"""The bytes of unfinished uploads, as pieces that are durable one by one, in the storage that all servers share.

Each call that uploads writes files of its own, so one that was taken over from cannot spoil what the other one writes.
In a folder, a call's file grows. In a store of objects, where nothing grows, each commit is a file.
"""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, final

from deploy.digest import file_digest
from service.storage.artifacts import ArtifactStore
from service.storage.storage import SMALL, Storage

FOLDER: Final = "uploads"
_SUFFIX: Final = ".part"
_BLOCK: Final = 1 << 20


@dataclass(frozen=True)
class Piece:
    """A durable part of an upload: `size` bytes of it from `start` on, at the beginning of the file `name`."""

    start: int
    size: int
    name: str


class LostPieceError(Exception):
    """A piece's bytes are not there any more; `start` is its first."""

    def __init__(self, start: int) -> None:
        super().__init__(f"the piece at {start} is gone")
        self.start = start


class PieceWriter(ABC):
    """What one call writes. Not for more than one thread at a time."""

    @property
    @abstractmethod
    def most(self) -> int:
        """Bytes that may be written between two flushes."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Takes bytes; those that were taken before stay if these cannot be."""

    @abstractmethod
    def flush(self) -> Piece:
        """Makes all that was written durable, and returns the piece that it is in; not before something was written."""

    @abstractmethod
    def settle(self) -> None:
        """Hears that the piece of the last flush is in the database."""

    @abstractmethod
    def drop(self) -> None:
        """Closes, and removes what is in no piece that somebody knows of."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of what was not flushed. May be called twice."""


def new_writer(storage: Storage, key: str, start: int) -> PieceWriter:
    """Returns what writes an upload's bytes from `start` on.

    Args:
        storage: Where the pieces go.
        key: The upload's.
        start: Bytes that are durable already.
    """
    if storage.folder is None:
        return _Objects(storage, key, start)
    return _GrowingFile(storage, key, start)


def remove_pieces(storage: Storage, names: Sequence[str]) -> None:
    """Removes files of pieces, as far as they are there."""
    for name in names:
        storage.remove(f"{FOLDER}/{name}")


def piece_files(storage: Storage) -> dict[str, str]:
    """Returns the files of all pieces, and the key of the upload that each belongs to."""
    return {name: name.partition(".")[0] for name in storage.names(FOLDER) if name.endswith(_SUFFIX)}


def keep_whole(store: ArtifactStore, pieces: Sequence[Piece], sha256: str) -> bool:
    """Puts an upload's pieces together and into the store, if they have this SHA-256; returns whether they have.

    Args:
        store: Where the whole goes.
        pieces: All of them, in order, without gaps.
        sha256: What was announced.

    Raises:
        LostPieceError: A piece is gone.
        StorageUnavailableError: The storage does not answer.
        DiskFullError: There is no room.
    """
    if store.storage.folder is None:
        size = pieces[-1].start + pieces[-1].size
        return store.keep_blocks(_blocks(store.storage, pieces), sha256, size)
    whole = _joined(store.storage, store.storage.folder / FOLDER, pieces)
    if file_digest(whole) != sha256:
        return False
    store.keep(whole, sha256)
    return True


def _blocks(storage: Storage, pieces: Sequence[Piece]) -> Iterator[bytes]:
    for piece in pieces:
        try:
            data = storage.get(f"{FOLDER}/{piece.name}", piece.size)
        except FileNotFoundError as exc:
            raise LostPieceError(piece.start) from exc
        if len(data) < piece.size:
            raise LostPieceError(piece.start)
        yield data


def _joined(storage: Storage, folder: Path, pieces: Sequence[Piece]) -> Path:
    """Appends all pieces to the first one, whose bytes need not be copied so."""
    for piece in pieces:
        if _size(folder / piece.name) < piece.size:
            storage.check()
            raise LostPieceError(piece.start)
    first, *others = pieces
    whole = folder / first.name
    with storage.guarded():
        whole.chmod(0o600)
        with whole.open("r+b") as target:
            for piece in others:
                target.seek(piece.start)
                _append(target, folder / piece.name, piece.size)
            target.truncate(pieces[-1].start + pieces[-1].size)
            target.flush()
            os.fsync(target.fileno())
    return whole


def _append(target: IO[bytes], source: Path, size: int) -> None:
    with source.open("rb") as stream:
        while size > 0 and (block := stream.read(min(_BLOCK, size))):
            target.write(block)
            size -= len(block)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _new_name(key: str, start: int) -> str:
    return f"{key}.{start}-{secrets.token_hex(8)}{_SUFFIX}"


@final
class _GrowingFile(PieceWriter):
    """One file in a folder."""

    def __init__(self, storage: Storage, key: str, start: int) -> None:
        self._storage, self._key, self._start = storage, key, start
        self._file, self._size, self._name = -1, 0, ""

    @property
    def most(self) -> int:
        return 1 << 62

    def write(self, data: bytes) -> None:
        with self._storage.guarded():
            if self._file < 0:
                self._begin()
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._file, view) :]
            except BaseException:
                os.ftruncate(self._file, self._size)
                os.lseek(self._file, self._size, os.SEEK_SET)
                raise
        self._size += len(data)

    def _begin(self) -> None:
        self._storage.check()
        assert self._storage.folder is not None
        folder = self._storage.folder / FOLDER
        folder.mkdir(exist_ok=True)
        self._name = _new_name(self._key, self._start)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(folder / self._name, flags, 0o600)

    def flush(self) -> Piece:
        with self._storage.guarded():
            # A file in a folder that was replaced could be written still, and nobody would ever find it.
            self._storage.check()
            os.fsync(self._file)
        return Piece(self._start, self._size, self._name)

    def settle(self) -> None:
        pass

    def drop(self) -> None:
        self.close()
        if self._name:
            self._storage.remove(f"{FOLDER}/{self._name}")

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@final
class _Objects(PieceWriter):
    """A file for each commit, kept in memory before."""

    def __init__(self, storage: Storage, key: str, start: int) -> None:
        self._storage, self._key, self._start = storage, key, start
        self._data = bytearray()

    @property
    def most(self) -> int:
        return SMALL

    def write(self, data: bytes) -> None:
        self._data += data

    def flush(self) -> Piece:
        name = _new_name(self._key, self._start)
        self._storage.put(f"{FOLDER}/{name}", bytes(self._data))
        return Piece(self._start, len(self._data), name)

    def settle(self) -> None:
        self._start += len(self._data)
        self._data.clear()

    def drop(self) -> None:
        self.close()

    def close(self) -> None:
        self._data.clear()
