"""Zip archives from strangers, read without trusting anything in them.

A `.pt2` is a zip with one top folder. Everything is read under caps, one entry at a time, checked, and written again as
a new archive that holds only what was checked: no other reader ever parses the original bytes, so that a file that two
zip readers understand differently gains nothing.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import final

from torch.export.pt2_archive import PT2ArchiveWriter

from compressors.errors import ModelError, UnsafeModelError


@dataclass(frozen=True)
class ArchiveLimits:
    """Caps that hold before anything is decompressed.

    Attributes:
        total_bytes: Sum of all entries' sizes after decompression.
        ratio: Largest compression ratio of one entry; torch stores entries uncompressed.
        entries: Number of entries.
    """

    total_bytes: int = 8 * 2**30
    ratio: float = 20.0
    entries: int = 100_000


@final
class Entries(Mapping[str, bytes]):
    """What an archive holds, by name below its top folder; every entry is read when it is asked for, and not kept."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        self._infos = {_inner(info.filename): info for info in archive.infolist() if not info.is_dir()}

    def __getitem__(self, name: str) -> bytes:
        info = self._infos[name]
        try:
            return self._archive.read(info)
        except DAMAGE as exc:
            raise _damaged(self._path, exc) from exc

    def __contains__(self, name: object) -> bool:
        return name in self._infos

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self._infos)

    def size(self, name: str) -> int:
        """Returns an entry's bytes after decompression."""
        return self._infos[name].file_size


DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    ValueError,
)
"""What zip readers raise for files that are damaged."""


@contextmanager
def open_entries(path: Path, limits: ArchiveLimits | None = None) -> Iterator[Entries]:
    """Yields the entries of an archive whose names and sizes have been checked.

    Raises:
        ModelError: The file is no intact zip, or breaks a cap.
        UnsafeModelError: It holds absolute, climbing, duplicate or encrypted names.
    """
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError as exc:
        raise ModelError(f"{path.name}: there is no such file") from exc
    except DAMAGE as exc:
        raise _damaged(path, exc) from exc
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        _check_sizes(path, infos, limits or ArchiveLimits())
        _check_names(path, infos)
        yield Entries(path, archive)


def write_entries(target: Path, changed: Mapping[str, bytes], kept: Mapping[str, str], source: Entries) -> None:
    """Writes a new archive with exactly these entries, one in memory at a time.

    Args:
        target: The file to write.
        changed: New contents by name.
        kept: Names in the new archive of what is copied from the old one, to names there.
        source: The old archive.
    """
    with PT2ArchiveWriter(str(target)) as writer:
        for name, data in changed.items():
            writer.write_bytes(name, data)
        for name, old in kept.items():
            writer.write_bytes(name, source[old])


def _damaged(path: Path, reason: object) -> ModelError:
    return ModelError(
        f"{path.name} is truncated or damaged, or is no .pt2 archive ({reason}); write it again with torch.export.save"
    )


def _inner(name: str) -> str:
    """Returns an entry's name without the top folder."""
    return name.split("/", 1)[-1]


def _check_sizes(path: Path, infos: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    # An archive holds archives; where its own end is cut off, a reader finds an inner one that starts further back.
    if not infos or min(info.header_offset for info in infos) > 0:
        raise _damaged(path, "the archive does not start where the file starts")
    if len(infos) > limits.entries:
        raise ModelError(f"{path.name} holds {len(infos)} entries, more than the {limits.entries} allowed")
    total = sum(info.file_size for info in infos)
    if total > limits.total_bytes:
        raise ModelError(f"{path.name} unpacks to {total} bytes, more than the {limits.total_bytes} allowed")
    for info in infos:
        if info.file_size > limits.ratio * max(info.compress_size, 1) and info.file_size > 2**20:
            raise ModelError(f"{path.name}: entry {info.filename!r} is compressed more than {limits.ratio:g} times")


def _check_names(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    names = [info.filename for info in infos]
    if len(set(names)) != len(names):
        raise UnsafeModelError(f"{path.name} holds an entry twice, so that readers may disagree about it")
    for info in infos:
        parts = PurePosixPath(info.filename).parts
        if ".." in parts or info.filename.startswith("/") or "\\" in info.filename or info.flag_bits & 1:
            raise UnsafeModelError(f"{path.name}: entry {info.filename!r} has an unsafe name or is encrypted")
    tops = {name.split("/", 1)[0] for name in names}
    if len(tops) > 1:
        raise ModelError(f"{path.name} has {len(tops)} top folders; an archive of torch.export.save has one")
