"""Unpacks uploaded archives that nobody has looked into yet: tar, compressed or not, and zip."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, final

from typing_extensions import override

from service.data.errors import DataError, machine_is_to_blame
from service.wording import reason

MAX_MEMBERS: Final = 5_000_000
MAX_BYTES: Final = 512 * 2**30
MAX_RATIO: Final = 200.0
"""Of what is unpacked to the archive. Text in long lines shrinks to a fiftieth; what shrinks more was made to."""

DAMAGE: Final = (EOFError, ValueError, OSError, zlib.error, lzma.LZMAError)
"""What the libraries of compressed files raise for those that are damaged."""

FREE_BYTES: Final = 64 * 2**20
"""Unpacked without asking for the ratio."""

_DIRECTORY_BYTES = 1 << 30
"""Of a zip's table of contents, which is read into memory whole."""
_CHUNK = 1 << 20
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")


def allowance(files: Sequence[Path]) -> int:
    """Returns how many bytes files may unpack to before they are taken for made to fill the disk."""
    return max(FREE_BYTES, int(MAX_RATIO * sum(file.stat().st_size for file in files)))


def unpack_tar(
    file: Path, target: Path, field: str, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS
) -> None:
    """Unpacks plain files and folders into `target`.

    Args:
        file: A tar archive that is not compressed.
        target: A new or empty folder.
        field: What to blame.
        max_bytes: Most bytes to write.
        max_members: Most members to take.

    Raises:
        DataError: A member leaves the folder, is a link or a device, there is too much of it, or it is damaged.
        OSError: The machine is to blame: the disk is full, say.
    """
    target.mkdir(parents=True, exist_ok=True)
    limits = _Limits(file, "tar", field, max_bytes, max_members)
    with open_tar(file, field) as archive:
        for member in archive:
            limits.count(member.size)
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise DataError(
                    field, f"tar member {member.name[:200]!r} is a link or a device; pack plain files and folders only"
                )
            _extract(archive, member, target, field)
            # tarfile keeps every header it has read; millions of them are gigabytes.
            archive.members = []  # type: ignore[attr-defined]  # not in typeshed


@contextmanager
def open_tar(file: Path, field: str) -> Iterator[tarfile.TarFile]:
    """Opens a tar archive that is not compressed, and whose headers may not be as large as they please.

    Raises:
        DataError: It is damaged, or a member lies outside of it.
        OSError: The machine is to blame.
    """
    try:
        with _Guarded(file) as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            yield archive
    except (tarfile.TarError, EOFError, ValueError, OSError) as exc:
        if machine_is_to_blame(exc):
            raise
        raise DataError(field, f"cannot read {file.name} as a tar archive: {reason(exc)}; pack it again") from exc


@final
class _Guarded(io.RawIOBase):
    """A file that hands out a little at a time: a header may state any length, and tarfile reads as much at once."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")

    @override
    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    @override
    def tell(self) -> int:
        return self._file.tell()

    @override
    def close(self) -> None:
        self._file.close()
        super().close()


def decompressed(file: Path, target: Path, field: str) -> Path:
    """Writes what a gzip, bzip2 or xz file holds to `target`, and returns it.

    Raises:
        DataError: It is damaged, or too much of it.
        OSError: The machine is to blame.
    """
    limits = _Limits(file, "tar", field, MAX_BYTES, MAX_MEMBERS)
    try:
        with opener(file)(file, "rb") as packed, target.open("wb") as unpacked:
            while data := packed.read(_CHUNK):
                limits.more(len(data))
                unpacked.write(data)
    except DAMAGE as exc:
        if machine_is_to_blame(exc):
            raise
        raise DataError(field, f"cannot read {file.name} as a tar archive: {reason(exc)}; pack it again") from exc
    return target


def opener(file: Path) -> Callable[..., IO[bytes]]:
    """Returns what opens a file so that it reads as it was before it was compressed; `open` where it is not."""
    with file.open("rb") as opened:
        start = opened.read(6)
    known: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    return next((open_ for magic, open_ in known.items() if start.startswith(magic)), open)


def unpack_zip(
    file: Path, target: Path, field: str, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS
) -> None:
    """Unpacks plain files into `target`; arguments and errors as of `unpack_tar`."""
    target.mkdir(parents=True, exist_ok=True)
    limits = _Limits(file, "zip", field, max_bytes, max_members)
    with open_zip(file, field) as archive:
        for info in archive.infolist():
            limits.count(info.file_size)
            place = _place(info, target, field)
            if info.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                raise DataError(field, f"zip member {info.filename[:200]!r} is there twice; pack every file once")
            with archive.open(info) as packed, place.open("xb") as unpacked:
                _copy(packed, unpacked, info.file_size, f"zip member {info.filename[:200]!r}", field)


@contextmanager
def open_zip(file: Path, field: str) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive whose table of contents fits into memory.

    Raises:
        DataError: It does not, or the archive is damaged.
        OSError: The machine is to blame.
    """
    try:
        entries, size = _directory(file)
        if size > _DIRECTORY_BYTES or entries > MAX_MEMBERS:
            raise DataError(field, f"{file.name} has a table of contents of {entries} members; give less data")
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, OSError) as exc:
        if machine_is_to_blame(exc):
            raise
        raise DataError(field, f"cannot read {file.name} as a zip archive: {reason(exc)}; pack it again") from exc
    except (zlib.error, lzma.LZMAError, struct.error) as exc:
        raise DataError(field, f"cannot read {file.name} as a zip archive: {reason(exc)}; pack it again") from exc


def _directory(file: Path) -> tuple[int, int]:
    """Returns how many members a zip's end says there are, and the size of the table of contents."""
    with file.open("rb") as opened:
        length = opened.seek(0, 2)
        opened.seek(max(0, length - 65_536 - _END.size - 20 - _END64.size))
        tail = opened.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise zipfile.BadZipFile("its end is missing")
    entries, size = _END.unpack_from(tail, at)[4:6]
    at64 = tail.rfind(b"PK\x06\x06", 0, at)
    if at64 >= 0 and len(tail) - at64 >= _END64.size:
        found = _END64.unpack_from(tail, at64)
        entries, size = max(entries, found[7]), max(size, found[8])
    return entries, size


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, field: str) -> None:
    """Writes a plain file or folder of a tar; by this module, since not every Python 3.11 has tarfile's filters."""
    name = member.name.lstrip("/")
    if PurePosixPath(name) == PurePosixPath():
        return  # `./`, as `tar -C folder .` writes it
    place = _within(target, name, "tar", field)
    place.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        place.mkdir(exist_ok=True)
        return
    source = archive.extractfile(member)
    assert source is not None
    with source, place.open("wb") as unpacked:
        _copy(source, unpacked, member.size, f"tar member {member.name[:200]!r}", field)


def _within(target: Path, name: str, what: str, field: str) -> Path:
    """Returns where a member of that name goes, after making sure that it is below `target`."""
    parts = PurePosixPath(name).parts
    odd = "\\" in name or ":" in name or any(ord(letter) < 32 for letter in name)
    if not parts or name.startswith("/") or ".." in parts or odd:
        raise DataError(
            field, f"refused to unpack {what} member {name[:200]!r}: its name is unsafe; pack relative paths"
        )
    return target.joinpath(*parts)


def _place(info: zipfile.ZipInfo, target: Path, field: str) -> Path:
    """Returns where a member goes, after making sure that it may."""
    name = info.filename
    place = _within(target, name, "zip", field)
    if info.flag_bits & 1 or (info.external_attr >> 28) not in {0, 4, 8}:
        raise DataError(field, f"zip member {name[:200]!r} is encrypted or a link; pack plain files and folders only")
    return place


def _copy(packed: IO[bytes], unpacked: IO[bytes], size: int, member: str, field: str) -> None:
    """Writes what a member claims to hold, and not a byte more."""
    left = size
    while left and (data := packed.read(min(_CHUNK, left))):
        unpacked.write(data)
        left -= len(data)
    if left:
        raise DataError(field, f"{member} is shorter than it says; pack it again")


@final
class _Limits:
    """What has been unpacked so far, and the caps on it."""

    def __init__(self, file: Path, what: str, field: str, max_bytes: int, max_members: int) -> None:
        self._what, self._field = what, field
        self._max_bytes, self._max_members = max_bytes, max_members
        self._free = allowance([file])
        self._bytes = self._members = 0

    def count(self, size: int) -> None:
        """Counts a member before it is written.

        Raises:
            DataError: It is one too many, or too large.
        """
        self._members += 1
        self.more(size)
        if self._members > self._max_members:
            raise DataError(
                self._field, f"the {self._what} archive has more than {self._max_members} members; give less data"
            )

    def more(self, size: int) -> None:
        """Counts bytes before they are written.

        Raises:
            DataError: They are too many.
        """
        self._bytes += size
        if self._bytes > self._max_bytes:
            raise DataError(
                self._field, f"the {self._what} archive unpacks to more than {self._max_bytes} bytes; give less data"
            )
        if self._bytes > self._free:
            raise DataError(
                self._field,
                f"the {self._what} archive unpacks to more than {MAX_RATIO:.0f} times its size, as no images or texts "
                "do; send it unpacked",
            )
