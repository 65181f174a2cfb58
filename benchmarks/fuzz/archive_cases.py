"""Lying archives: members that climb, link, repeat, overlap, nest, shrink a thousandfold, or are not what they say."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from functools import cache

from benchmarks.fuzz.data_seeds import tar_of, zip_of
from benchmarks.fuzz.values import INTEGERS, PATHS, STRINGS, Random, chance, mangle, pick
from benchmarks.fuzz.zips import mangle_zip

Entries = Sequence[tuple[str, bytes]]

NAMES = (
    *(
        *PATHS,
        *STRINGS,
        "cat",
        "cat/",
        "cat/001.img/x",
        "CAT/001.img",
        "a/" * 200 + "x",
        "é" * 200 + "/x",
        "cat/" + "n" * 255,
    ),
    *(
        "cat/" + "n" * 256,
        "./cat/x",
        "cat//x",
        "cat/./x",
        "//cat/x",
        "cat\\x",
        "C:/x",
        "train/x",
        "val/x",
        "..",
        ".",
        "...",
    ),
    *(".hidden", "__MACOSX/x", "state.json", "dataset_info.json", "images.npy", "x.parquet", "a\nb/c", "\x7f", "-rf"),
    *(
        "cat/\ud83d\ude00.img".encode("utf-16", "surrogatepass").decode("utf-16"),
        "con",
        "a b/c d",
        "%2e%2e/x",
        "cat/x\u2028y",
    ),
)
_KINDS = (
    *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE),
    *(
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.GNUTYPE_LONGNAME,
        b"Z",
        b"\0",
    ),
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_SIZES = (0, 1, 511, 512, 513, 10**6, 2**31, 2**33 - 1, 2**33, 2**62, 2**63, -1, -(2**62))
_PACKERS = (gzip.compress, bz2.compress, lzma.compress)


def broken_archive(random: Random, entries: Entries) -> bytes:
    """Returns a zip or tar of the entries that is not what it seems."""
    return pick(random, _WAYS)(random, entries)


def _mangled_zip(random: Random, entries: Entries) -> bytes:
    return mangle_zip(random, dict(entries), pick(random, _METHODS))


def _named_zip(random: Random, entries: Entries) -> bytes:
    """Names that are unsafe, impossible or in each other's way, and modes of links and devices."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", pick(random, _METHODS)) as archive:
        warnings.simplefilter("ignore")
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data)
        for _ in range(int(random.integers(1, 4))):
            info = zipfile.ZipInfo(str(pick(random, NAMES)).encode("utf-8", "ignore").decode() or "?")
            info.external_attr = int(pick(random, (0, 0xA1FF, 0x21FF, 0x61FF, 0x11FF, 0x41FF, 0x81A4))) << 16
            archive.writestr(info, b"/etc/passwd")
    return out.getvalue()


def _zip64(random: Random, entries: Entries) -> bytes:
    """Records for large archives that state other sizes than there are."""
    data = bytearray(zip_of(entries))
    end = data.rfind(b"PK\x05\x06")
    size, start = struct.unpack_from("<II", data, end + 12)
    count = int(pick(random, (len(entries), 0, 10**7, 2**40, 2**63)))
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, int(pick(random, (size, *INTEGERS))) % 2**63, start
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, int(pick(random, (end, 0, 2**62))), 1)
    struct.pack_into("<HHII", data, end + 8, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    return bytes(data[:end] + record + locator + data[end:])


def _extra(random: Random, entries: Entries) -> bytes:
    """Members with extra fields that speak of other sizes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            if chance(random, 0.2):
                kind, values = pick(
                    random, ((1, "<QQ"), (1, "<Q"), (1, "<H"), (0x7075, "<QQ"), (99, "<QQ"), (0x5455, "<Q"))
                )
                content = struct.pack(values, *[int(pick(random, INTEGERS)) % 2**16 for _ in values[1:]])
                info.extra = struct.pack("<HH", kind, int(pick(random, (len(content), 0, 65_535)))) + content
            archive.writestr(info, data)
    return out.getvalue()


def _overlapping(random: Random, entries: Entries) -> bytes:
    """Thousands of members that are all the same bytes."""
    one = zip_of([("cat/0000000.img", pick(random, (entries[0][1], _zeros(1 << 20))))])
    at = one.rfind(b"PK\x01\x02")
    central = one[at : one.rfind(b"PK\x05\x06")]
    count = int(pick(random, (100, 5000)))
    directory = b"".join(central.replace(b"0000000", f"{index:07}".encode()) for index in range(count))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), at, 0)
    return one[:at] + directory + end


@cache
def _zeros(size: int) -> bytes:
    return bytes(size)


def _bomb(random: Random, entries: Entries) -> bytes:
    """A thousandth of what it unpacks to."""
    size = int(pick(random, (1 << 20, 40 << 20, 80 << 20)))
    return _packed_zeros(tuple(entries), size, int(random.integers(7)))


@cache
def _packed_zeros(entries: tuple[tuple[str, bytes], ...], size: int, way: int) -> bytes:
    if way < 3:
        return zip_of([*entries, ("cat/bomb.img", _zeros(size))], _METHODS[1 + way])
    if way == 3:
        return gzip.compress(_zeros(size))
    whole = tar_of([*entries, ("cat/bomb.img", _zeros(size))])
    return gzip.compress(gzip.compress(whole)) if way == 6 else _PACKERS[way - 4](whole)


def _many(random: Random, entries: Entries) -> bytes:
    """Tens of thousands of members with nothing in them."""
    more = [
        (f"{pick(random, ('cat', 'dog', f'class{index}'))}/{index}", b"")
        for index in range(int(pick(random, (1000, 5000))))
    ]
    return zip_of([*entries, *more]) if chance(random, 0.5) else tar_of([*entries, *more])


def _nested(random: Random, entries: Entries) -> bytes:
    """Archives in archives."""
    data = zip_of(entries) if chance(random, 0.5) else tar_of(entries)
    for level in range(int(random.integers(1, 6))):
        name = str(pick(random, (f"inner{level}", "train.zip", "data.tar", "a/b/c/d", "x" * 100)))
        data = pick(random, (zip_of, tar_of))([(name, data)])
        if chance(random, 0.3):
            data = pick(random, _PACKERS)(data)
    return data


def _around(random: Random, entries: Entries) -> bytes:
    """Something before the archive, or after it."""
    data, more = (
        zip_of(entries) if chance(random, 0.5) else tar_of(entries),
        random.bytes(int(pick(random, (1, 512, 70_000)))),
    )
    return more + data if chance(random, 0.5) else data + more


def _members(random: Random, entries: Entries) -> bytes:
    """Members of a tar that are links, devices, folders or nothing known, under any name, with any length."""
    out = io.BytesIO()
    form = pick(random, (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in entries:
            _add(archive, tarfile.TarInfo(name), data)
            if chance(random, 0.1):
                odd = tarfile.TarInfo(str(pick(random, (*NAMES, name))).encode("utf-8", "ignore").decode())
                odd.type, odd.linkname = (
                    pick(random, (*_KINDS, tarfile.REGTYPE)),
                    str(pick(random, (*PATHS, name))).encode("utf-8", "ignore").decode(),
                )
                odd.mode = int(pick(random, (0, 0o777, 0o6777)))
                _add(archive, odd, b"x" * int(pick(random, (0, 1, 600))))
    return _packed(random, out.getvalue())


def _add(archive: tarfile.TarFile, info: tarfile.TarInfo, data: bytes) -> None:
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _headers(random: Random, entries: Entries) -> bytes:
    """Fields of a tar's headers, with the checksum made right again."""
    data = bytearray(tar_of(entries, form=pick(random, (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))))
    heads = [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"]
    for _ in range(int(random.integers(1, 3))):
        at = pick(random, heads)
        _rewrite(random, data, at)
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return _packed(random, bytes(data))


def _rewrite(random: Random, data: bytearray, at: int) -> None:
    kind = int(random.integers(4))
    if kind == 0:
        data[at + 124 : at + 136] = _number(int(pick(random, _SIZES)))
    elif kind == 1:
        data[at + 156 : at + 157] = pick(random, (*_KINDS, b"K", b"L", b"x", b"g", b"S", b"V", b"M"))
    elif kind == 2:
        data[at : at + 100] = str(pick(random, NAMES)).encode("utf-8", "ignore")[:100].ljust(100, b"\0")
    else:
        place = at + int(random.integers(512))
        data[place : place + 4] = random.bytes(4)


def _number(size: int) -> bytes:
    """Returns a size as tar writes it: octal, or base 256 where that does not do."""
    if 0 <= size < 8**11:
        return b"%011o\0" % size
    return bytes([0x80 if size >= 0 else 0xFF]) + (size % 2**88).to_bytes(11, "big")


def _records(random: Random, entries: Entries) -> bytes:
    """Extended headers that say what they please."""
    keys = ("path", "size", "linkpath", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.map", "GNU.sparse.realsize")
    keys += ("GNU.sparse.name", "GNU.sparse.size", "GNU.sparse.numblocks", "hdrcharset", "mtime", "uid", "x" * 3000, "")
    values = (*NAMES, *map(str, _SIZES), "1", "0", "1,2,3", "nan", "1e400", "9" * 5000, "BINARY")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            if chance(random, 0.1):
                info.pax_headers = {
                    pick(random, keys): str(pick(random, values)).encode("utf-8", "ignore").decode()
                    for _ in range(int(random.integers(1, 4)))
                }
            _add(archive, info, data)
    return _packed(random, out.getvalue())


def _packed(random: Random, data: bytes) -> bytes:
    kind = int(random.integers(10))
    if kind < 3:
        data = _PACKERS[kind](data)
    if chance(random, 0.15):
        data = mangle(random, data, data)
    return data[: int(random.integers(len(data) + 1))] if chance(random, 0.05) else data


_WAYS: tuple[Callable[[Random, Entries], bytes], ...] = (
    *(_mangled_zip, _mangled_zip, _named_zip, _named_zip, _zip64, _extra, _overlapping, _bomb, _many, _nested, _around),
    *(_members, _members, _headers, _headers, _records, _records),
)
