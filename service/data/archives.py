"""Unpacks an uploaded tar archive that nobody has looked into yet."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from pathlib import Path
from typing import Final

from service.data.errors import DataError, machine_is_to_blame

MAX_MEMBERS: Final = 5_000_000
MAX_BYTES: Final = 512 * 2**30


def unpack_tar(
    file: Path, target: Path, field: str, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS
) -> None:
    """Unpacks plain files and folders into `target`.

    Args:
        file: A tar archive, compressed or not.
        target: A new or empty folder.
        field: What to blame.
        max_bytes: Most bytes to write.
        max_members: Most members to take.

    Raises:
        DataError: A member leaves the folder, is a link or a device, there is too much of it, or it is damaged.
        OSError: The machine is to blame: the disk is full, say.
    """
    target.mkdir(parents=True, exist_ok=True)
    written = 0
    try:
        with tarfile.open(file, "r:*") as archive:
            for number, member in enumerate(archive):
                written += member.size
                _check(member, number, written, field, (max_bytes, max_members))
                archive.extract(member, target, filter="data")
                # tarfile keeps every header it has read; millions of them are gigabytes.
                archive.members = []  # type: ignore[attr-defined]  # not in typeshed
    except tarfile.FilterError as exc:
        raise DataError(field, f"refused to unpack {file.name}: {exc}; pack plain files under relative paths") from exc
    except (tarfile.TarError, EOFError, ValueError, OSError, zlib.error, lzma.LZMAError) as exc:
        if machine_is_to_blame(exc):
            raise
        raise DataError(field, f"cannot read {file.name} as a tar archive: {exc}; pack it again") from exc


def _check(member: tarfile.TarInfo, number: int, written: int, field: str, limits: tuple[int, int]) -> None:
    if not (member.isreg() or member.isdir()):
        raise DataError(field, f"tar member {member.name!r} is a link or a device; pack plain files and folders only")
    if written > limits[0]:
        raise DataError(field, f"the tar archive unpacks to more than {limits[0]} bytes; give less data")
    if number >= limits[1]:
        raise DataError(field, f"the tar archive has more than {limits[1]} members; give less data")
