"""Broken zip archives."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile

from benchmarks.fuzz.values import INTEGERS, PATHS, Random, chance, mangle, pick

_CENTRAL = b"PK\x01\x02"
_FIELDS = {"method": (10, 2), "crc": (16, 4), "packed": (20, 4), "size": (24, 4), "mode": (38, 4), "offset": (42, 4)}
_FLAGS = (8, 2)


def mangle_zip(random: Random, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Returns the entries as a zip, with names, sizes, offsets, methods or bytes changed."""
    kind = int(random.integers(8))
    names = list(entries)
    if kind == 0:
        entries = {**entries, pick(random, (*PATHS, "top/" + "x/" * 500, "a\0b", "other/model")): b"1" * 100}
    if kind == 1:
        method = pick(random, (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        entries = {**entries, names[0]: entries[names[0]] + b"\0" * pick(random, (0, 2**10, 2**21))}
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, data in entries.items():
            name = name or "?"  # noqa: PLW2901 - zipfile itself stumbles over an empty one
            archive.writestr(zipfile.ZipInfo(name) if chance(random, 0.5) else name, data)
        if kind == 2:
            archive.writestr(pick(random, names), b"again")
    made = buffer.getvalue()
    if kind in {3, 4, 5}:
        return _directory(random, made)
    return mangle(random, made, made) if kind == 6 else made


def _directory(random: Random, data: bytes) -> bytes:
    """Changes fields of one entry in the central directory."""
    places, at = [], data.find(_CENTRAL)
    while at >= 0:
        places.append(at)
        at = data.find(_CENTRAL, at + 4)
    if not places:
        return data
    broken = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        at = pick(random, places)
        offset, width = pick(random, (*_FIELDS.values(), _FLAGS))
        if at + offset + width > len(broken):
            continue
        value = int(pick(random, (*INTEGERS, 1, 9, 12, 14, 99, 0xA1FF << 16))) % 2 ** (8 * width)
        struct.pack_into("<H" if width == 2 else "<I", broken, at + offset, value)
    return bytes(broken)
