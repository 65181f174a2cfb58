"""Zip and tar archives of several files, unpacked under caps into a folder of ours.

Every name is checked before anything is written, and every entry is written by this module: no archive library ever
chooses a path, follows a link or sets a mode.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from compressors.errors import ModelError, UnsafeModelError
from compressors.sources.archive import ArchiveLimits

_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, OSError, ValueError)
_CHUNK = 2**20


@dataclass(frozen=True)
class _Entry:
    """One file in an archive: its name, its claimed size, and how to open it."""

    name: str
    size: int
    packed: int
    handle: Any


def is_archive(path: Path) -> bool:
    """Says whether a file is a zip or a tar, by its content."""
    with path.open("rb") as file:
        head = file.read(512)
    return head.startswith(b"PK\x03\x04") or (len(head) == 512 and head[257:262] == b"ustar")


def unpack(path: Path, folder: Path, limits: ArchiveLimits | None = None) -> list[Path]:
    """Writes every file of a zip or (uncompressed) tar below `folder` and returns their paths.

    Args:
        path: The archive.
        folder: An empty folder.
        limits: Caps on what it may hold.

    Raises:
        ModelError: It is no intact archive, or breaks a cap.
        UnsafeModelError: It holds absolute, climbing or duplicate names, links, devices or encrypted entries.
    """
    limits = limits or ArchiveLimits()
    try:
        with _opened(path) as (entries, read):
            _check(path, entries, limits)
            return [_write(path, entry, read, folder) for entry in entries]
    except FileNotFoundError as exc:
        raise ModelError(f"{path.name}: there is no such file") from exc
    except _DAMAGE as exc:
        raise ModelError(
            f"{path.name} is truncated or damaged, or is no zip or tar archive ({exc}); pack it again"
        ) from exc


@contextmanager
def _opened(path: Path) -> Iterator[tuple[list[_Entry], Any]]:
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped:
        with zipfile.ZipFile(path) as archive:
            yield [_zip_entry(path, info) for info in archive.infolist() if not info.is_dir()], archive.open
    else:
        with tarfile.open(path, "r:") as tar:
            yield [_tar_entry(path, member) for member in tar if not member.isdir()], tar.extractfile


def _zip_entry(path: Path, info: zipfile.ZipInfo) -> _Entry:
    kind = info.external_attr >> 28  # the file type of a Unix mode
    if info.flag_bits & 1 or kind not in {0, 8}:
        raise UnsafeModelError(f"{path.name}: entry {info.filename!r} is encrypted or is no plain file")
    return _Entry(info.filename, info.file_size, info.compress_size, info)


def _tar_entry(path: Path, member: tarfile.TarInfo) -> _Entry:
    if not member.isreg() or member.issparse():
        raise UnsafeModelError(
            f"{path.name}: entry {member.name!r} is a link, a device or a sparse file; pack plain files"
        )
    return _Entry(member.name, member.size, member.size, member)


def _check(path: Path, entries: list[_Entry], limits: ArchiveLimits) -> None:
    if not entries or len(entries) > limits.entries:
        raise ModelError(f"{path.name} holds {len(entries)} files; wanted 1 to {limits.entries}")
    total = sum(entry.size for entry in entries)
    if total > limits.total_bytes:
        raise ModelError(f"{path.name} unpacks to {total} bytes, more than the {limits.total_bytes} allowed")
    seen: set[str] = set()
    for entry in entries:
        if entry.size > limits.ratio * max(entry.packed, 1) and entry.size > 2**20:
            raise ModelError(f"{path.name}: entry {entry.name!r} is compressed more than {limits.ratio:g} times")
        name = _safe(path, entry.name)
        if name in seen:
            raise UnsafeModelError(f"{path.name} holds {entry.name!r} twice, so that readers may disagree about it")
        seen.add(name)


def _safe(path: Path, name: str) -> str:
    """Returns a name without `./`, after making sure that it stays below the folder."""
    parts = PurePosixPath(name).parts
    odd = any(ord(letter) < 32 for letter in name) or any(len(part.encode()) > 255 for part in parts)
    if not parts or ".." in parts or name.startswith("/") or "\\" in name or odd or ":" in parts[0]:
        raise UnsafeModelError(f"{path.name}: entry {name[:100]!r} has an unsafe name")
    return "/".join(parts)


def _write(path: Path, entry: _Entry, read: Any, folder: Path) -> Path:
    target = folder / _safe(path, entry.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with read(entry.handle) as source, target.open("xb") as file:
            _copy(source, file, entry, path)
    except (FileExistsError, NotADirectoryError) as exc:
        raise UnsafeModelError(f"{path.name}: entry {entry.name!r} is a file and a folder at once") from exc
    return target


def _copy(source: IO[bytes], file: IO[bytes], entry: _Entry, path: Path) -> None:
    """Copies what the entry claims, and not a byte more."""
    left = entry.size
    while left and (data := source.read(min(_CHUNK, left))):
        file.write(data)
        left -= len(data)
    if left:
        raise ModelError(f"{path.name}: entry {entry.name!r} claims {entry.size} bytes and has {entry.size - left}")
