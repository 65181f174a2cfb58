"""Zip and tar archives of several files from strangers, unpacked under caps into a folder of ours.

Every name is checked before its entry is written, and every entry is written by this module: no archive library ever
chooses a path, follows a link or sets a mode.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, final

from typing_extensions import override

from compressors.errors import ModelError, UnsafeModelError
from compressors.sources.archive import DAMAGE, ArchiveLimits

_DAMAGE = (*DAMAGE, tarfile.TarError)

_CHUNK = 2**20
_TEXT_BYTES = 64 * 2**20
_TENSORS = {".bin", ".pth", ".pt", ".safetensors"}
_DATA = {".json", *_TENSORS}


def is_archive(path: Path, *, of_torch: bool = False) -> bool:
    """Says whether a file is a zip or tar of files, by its content.

    Args:
        path: A file; what does not exist is no archive.
        of_torch: Whether to ask for the zip that `torch.save` writes instead; it is no archive of files.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if not zipped:
        return not of_torch and path.suffix not in _TENSORS and _is_tar(path)
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = any(name.rstrip("/").rpartition("/")[2] == "data.pkl" for name in archive.namelist())
    except _DAMAGE:
        return not of_torch
    return pickled == of_torch


def read_text(path: Path) -> bytes:
    """Returns a small text file whole.

    Raises:
        ValueError: It is larger than any config or index.
    """
    if path.stat().st_size > _TEXT_BYTES:
        raise ValueError(f"larger than {_TEXT_BYTES} bytes")
    return path.read_bytes()


@contextmanager
def open_folder(path: Path, limits: ArchiveLimits | None = None) -> Iterator[Path]:
    """Yields a directory with a model's files; an unpacked one is deleted afterwards.

    Of an archive only data files (JSON, safetensors, torch's state dicts) are written out, so that no code of the
    user's ever lies on disk. Tensors that were mapped from its files stay valid afterwards: the files go when the last
    mapping does.

    Raises:
        ModelError: It is no directory, zip or tar, is damaged, or breaks a cap.
        UnsafeModelError: It holds absolute or climbing names, links, devices, or one file twice.
    """
    if path.is_dir():
        _check_links(path)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="shoal-model-") as place:
        unpack(path, Path(place), limits, lambda name: PurePosixPath(name).suffix in _DATA)
        yield _top(Path(place))


def unpack(
    path: Path, folder: Path, limits: ArchiveLimits | None = None, wanted: Callable[[str], bool] = bool
) -> list[Path]:
    """Writes the files of a zip or tar below `folder` and returns their paths.

    Args:
        path: The archive.
        folder: An empty folder.
        limits: Caps on what it may hold.
        wanted: Says of a name whether to write the entry; all of them are checked.

    Raises:
        ModelError: It is no intact archive, or breaks a cap.
        UnsafeModelError: It holds absolute, climbing or duplicate names, links, devices or encrypted entries.
    """
    if not path.is_file():
        raise ModelError(f"{path.name}: there is no such file or folder")
    unpacked = _Unpacked(path, folder, limits or ArchiveLimits(), wanted)
    try:
        if zipfile.is_zipfile(path):
            _unpack_zip(path, unpacked)
        else:
            _unpack_tar(path, unpacked)
    except _DAMAGE as exc:
        raise ModelError(
            f"{path.name} is truncated or damaged, or is no zip or tar archive ({exc}); pack it again"
        ) from exc
    if not unpacked.seen:
        raise ModelError(f"{path.name} holds no files; pack the model's files")
    return unpacked.files


def _unpack_zip(path: Path, unpacked: _Unpacked) -> None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            kind = info.external_attr >> 28  # the file type of a Unix mode
            if info.flag_bits & 1 or kind not in {0, 8}:
                raise unpacked.unsafe(info.filename, "is encrypted or is no plain file")
            place = unpacked.check(info.filename, info.file_size)
            with archive.open(info) as file:
                unpacked.write(place, info.file_size, file)


def _unpack_tar(path: Path, unpacked: _Unpacked) -> None:
    with _open_tar(path) as tar:
        for member in tar:
            # tarfile keeps every header it has read; millions of them are gigabytes.
            tar.members = []  # type: ignore[attr-defined]  # not in typeshed
            if member.isdir():
                continue
            file = tar.extractfile(member) if member.isreg() and not member.issparse() else None
            if file is None:
                raise unpacked.unsafe(member.name, "is a link, a device or a sparse file; pack plain files")
            unpacked.write(unpacked.check(member.name, member.size), member.size, file)


@contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Opens a tar archive, compressed or not, whose headers may not be as large as they please."""
    with path.open("rb") as file:
        start = file.read(6)
    with _opener(start)(path, "rb") as plain, tarfile.open(fileobj=_Sparing(plain), mode="r:") as tar:
        yield tar


def _opener(start: bytes) -> Callable[[Path, str], IO[bytes]]:
    """Returns what opens a file that begins so, and gives what was compressed."""
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    return next((found for magic, found in openers.items() if start.startswith(magic)), Path.open)


def _is_tar(path: Path) -> bool:
    try:
        with _open_tar(path):
            return True
    except _DAMAGE:
        return False


@final
class _Sparing(io.RawIOBase):
    """A stream that hands out a little at a time: a header may state any length, and tarfile reads as much at once."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    @override
    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    @override
    def tell(self) -> int:
        return self._stream.tell()


class _Unpacked:
    """What has been unpacked so far, and the caps on it."""

    def __init__(self, path: Path, folder: Path, limits: ArchiveLimits, wanted: Callable[[str], bool]) -> None:
        self.seen: set[str] = set()
        self.files: list[Path] = []
        self._path, self._folder, self._limits, self._wanted = path, folder, limits, wanted
        self._total = 0

    def unsafe(self, name: str, what: str) -> UnsafeModelError:
        """Returns the error for an entry."""
        return UnsafeModelError(f"{self._path.name}: entry {name[:100]!r} {what}")

    def check(self, name: str, size: int) -> str:
        """Returns an entry's name without `./`, after making sure that it may be written.

        Raises:
            ModelError: It breaks a cap.
            UnsafeModelError: It would not stay below the folder, or was there before.
        """
        parts = PurePosixPath(name).parts
        odd = any(ord(letter) < 32 for letter in name) or any(len(part.encode()) > 255 for part in parts)
        if not parts or ".." in parts or name.startswith("/") or "\\" in name or odd or ":" in parts[0]:
            raise self.unsafe(name, "has an unsafe name")
        inner = "/".join(parts)
        if inner in self.seen:
            raise UnsafeModelError(f"{self._path.name} holds {name!r} twice, so that readers may disagree about it")
        self.seen.add(inner)
        self._count(size)
        return inner

    def _count(self, size: int) -> None:
        limits, name = self._limits, self._path.name
        self._total += size
        if len(self.seen) > limits.entries:
            raise ModelError(f"{name} holds more than the {limits.entries} files allowed")
        if self._total > limits.total_bytes:
            raise ModelError(f"{name} unpacks to more than the {limits.total_bytes} bytes allowed")
        if self._total > max(limits.ratio * self._path.stat().st_size, _CHUNK):
            raise ModelError(f"{name} is compressed more than {limits.ratio:g} times")

    def write(self, inner: str, size: int, source: IO[bytes]) -> None:
        """Writes what a checked entry claims, and not a byte more, if it is wanted."""
        if not self._wanted(inner):
            return
        place = self._folder / inner
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            file = place.open("xb")
        except (FileExistsError, NotADirectoryError) as exc:
            raise self.unsafe(inner, "is a file and a folder at once") from exc
        left = size
        with file:
            while left and (data := source.read(min(_CHUNK, left))):
                file.write(data)
                left -= len(data)
        if left:
            raise ModelError(f"{self._path.name}: entry {inner!r} claims {size} bytes and has {size - left}")
        self.files.append(place)


def _check_links(folder: Path) -> None:
    """Refuses links that leave the folder; those of a download cache, which keeps its files in `blobs`, may."""
    places = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        places.append(folder.resolve().parent.parent / "blobs")
    for item in folder.iterdir():
        if item.is_symlink() and not any(item.resolve().is_relative_to(place) for place in places):
            raise UnsafeModelError(f"{folder.name}: {item.name!r} is a link to a place outside the folder")


def _top(folder: Path) -> Path:
    """Returns the folder that the files lie in; archives often have one folder at the top."""
    items = list(folder.iterdir())
    return items[0] if len(items) == 1 and items[0].is_dir() else folder
