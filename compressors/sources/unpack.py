"""Folders from strangers: a directory as it is, or a zip or tar of one, unpacked under caps into a temporary place.

Only data files (JSON, safetensors, torch's state dicts) are written out; everything else in an archive is skipped, so
that no code of the user's ever lies on disk. Links are refused: an archive of a model needs none.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from compressors.errors import ModelError, UnsafeModelError
from compressors.sources.archive import ArchiveLimits

_TEXT_BYTES = 64 * 2**20
_KEPT = {".json", ".safetensors", ".bin", ".pth", ".pt"}


def is_archive(path: Path, *, of_torch: bool = False) -> bool:
    """Says whether a file is a zip or tar of files.

    Args:
        path: A file; what does not exist is no archive.
        of_torch: Whether to ask for the zip that `torch.save` writes instead; it is no archive of files.
    """
    if not path.is_file():
        return False
    if not zipfile.is_zipfile(path):
        return not of_torch and path.suffix not in {".bin", ".pth", ".pt", ".safetensors"} and tarfile.is_tarfile(path)
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = any(PurePosixPath(name).name == "data.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False
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

    Tensors that were mapped from its files stay valid after that: the files go when the last mapping does.

    Raises:
        ModelError: It is no directory, zip or tar, is damaged, or breaks a cap.
        UnsafeModelError: It holds absolute or climbing names, links, devices, or one file twice.
    """
    if path.is_dir():
        _check_links(path)
        yield path
        return
    if not path.is_file():
        raise ModelError(f"{path.name}: there is no such file or folder")
    with tempfile.TemporaryDirectory(prefix="shoal-model-") as place:
        folder = Path(place)
        try:
            _unpack(path, folder, limits or ArchiveLimits())
        except (
            zipfile.BadZipFile,
            tarfile.TarError,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            ValueError,
        ) as exc:
            raise ModelError(f"{path.name} is truncated or damaged, or is no folder, zip or tar ({exc})") from exc
        yield _top(folder)


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


def _unpack(path: Path, folder: Path, limits: ArchiveLimits) -> None:
    unpacked = _Unpacked(path, folder, limits)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir():
                    continue
                link = (info.external_attr >> 16) & 0o170000 == 0o120000
                with archive.open(info) as file:
                    unpacked.add(info.filename, info.file_size, file, odd=link or bool(info.flag_bits & 1))
        return
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            if not member.isdir():
                unpacked.add(member.name, member.size, tar.extractfile(member) if member.isreg() else None)


class _Unpacked:
    """What has been unpacked so far, and the caps on it."""

    def __init__(self, path: Path, folder: Path, limits: ArchiveLimits) -> None:
        self._path, self._folder, self._limits = path, folder, limits
        self._seen: set[str] = set()
        self._total = 0

    def add(self, name: str, size: int, file: IO[bytes] | None, *, odd: bool = False) -> None:
        """Writes one entry out, if it is data; checks every one."""
        parts = PurePosixPath(name.removeprefix("./")).parts
        if ".." in parts or name.startswith("/") or "\\" in name or "\0" in name or not parts:
            raise UnsafeModelError(f"{self._path.name}: entry {name!r} has an unsafe name")
        if file is None or odd:
            raise UnsafeModelError(f"{self._path.name}: entry {name!r} is a link or a device, or is encrypted")
        inner = "/".join(parts)
        if inner in self._seen:
            raise UnsafeModelError(f"{self._path.name} holds {name!r} twice, so that readers may disagree about it")
        self._seen.add(inner)
        self._count(size)
        if Path(inner).suffix in _KEPT:
            place = self._folder / inner
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as target:
                shutil.copyfileobj(file, target, 2**20)

    def _count(self, size: int) -> None:
        limits, name = self._limits, self._path.name
        self._total += size
        if len(self._seen) > limits.entries:
            raise ModelError(f"{name} holds more than the {limits.entries} entries allowed")
        if self._total > limits.total_bytes:
            raise ModelError(f"{name} unpacks to more than the {limits.total_bytes} bytes allowed")
        if self._total > max(limits.ratio * self._path.stat().st_size, 2**20):
            raise ModelError(f"{name} is compressed more than {limits.ratio:g} times")
