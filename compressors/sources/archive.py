"""Zip archives from strangers, read without trusting anything in them.

A `.pt2` is a zip with one top folder. Everything is read into memory under caps, checked, and written again as a new
archive that holds only what was checked: no other reader ever parses the original bytes, so that a file that two zip
readers understand differently gains nothing.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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


def read_entries(path: Path, limits: ArchiveLimits | None = None) -> dict[str, bytes]:
    """Returns every entry by its name below the archive's top folder.

    Raises:
        ModelError: The file is no intact zip, or breaks a cap.
        UnsafeModelError: It holds absolute, climbing, duplicate or encrypted names.
    """
    limits = limits or ArchiveLimits()
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            _check_sizes(path, infos, limits)
            _check_names(path, infos)
            return {_inner(info.filename): archive.read(info) for info in infos}
    except FileNotFoundError as exc:
        raise ModelError(f"{path.name}: there is no such file") from exc
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError) as exc:
        raise ModelError(
            f"{path.name} is truncated or damaged, or is no .pt2 archive ({exc}); write it again with torch.export.save"
        ) from exc


def write_entries(entries: dict[str, bytes]) -> io.BytesIO:
    """Returns a new archive with exactly these entries."""
    buffer = io.BytesIO()
    with PT2ArchiveWriter(buffer) as writer:
        for name, data in entries.items():
            writer.write_bytes(name, data)
    buffer.seek(0)
    return buffer


def _inner(name: str) -> str:
    """Returns an entry's name without the top folder."""
    return name.split("/", 1)[-1]


def _check_sizes(path: Path, infos: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    # An archive holds archives; where its own end is cut off, a reader finds an inner one that starts further back.
    if not infos or min(info.header_offset for info in infos) > 0:
        raise zipfile.BadZipFile("the archive does not start where the file starts")
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
