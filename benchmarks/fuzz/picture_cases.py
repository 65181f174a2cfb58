"""Hostile images: headers that promise the moon, frames and scans without end, chunks that lie, files that stop."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from benchmarks.fuzz.data_seeds import picture, pictures
from benchmarks.fuzz.values import Random, chance, mangle, pick

_SIDES = (0, 1, 2, 7, 8, 9, 255, 9_000, 60_000, 65_500, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_MODES = (("PNG", "RGB"), ("PNG", "1"), ("PNG", "I;16"), ("GIF", "P"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("BMP", "L"))


def hostile_picture(random: Random) -> bytes:
    """Returns an image that is broken, or larger than it looks, or merely odd."""
    return pick(random, _WAYS)(random)


def _mangled(random: Random) -> bytes:
    data = pick(random, pictures())
    for _ in range(int(random.integers(1, 4))):
        data = mangle(random, data, pick(random, pictures()))
    return data


def _cut(random: Random) -> bytes:
    data = pick(random, pictures())
    return data[: int(random.integers(len(data)))]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _sides(random: Random) -> tuple[int, int]:
    return int(pick(random, _SIDES)), int(pick(random, _SIDES))


def _png(random: Random) -> bytes:
    """A PNG of any size, with chunks that are in nobody's interest."""
    width, height = _sides(random) if chance(random, 0.7) else (8, 8)
    depth, colour = pick(random, ((8, 2), (8, 0), (16, 6), (1, 0), (8, 3), (3, 7), (16, 2)))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(random.integers(3)))
    bomb = _text_bomb()
    extra = [
        _chunk(b"zTXt", b"a\0\0" + bomb),
        _chunk(b"iCCP", b"a\0\0" + bomb),
        _chunk(b"iTXt", b"a\0\x01\0\0\0" + bomb),
        _chunk(b"eXIf", b"MM\0*" + random.bytes(60)),
        _chunk(b"tRNS", random.bytes(7)),
        _chunk(b"PLTE", random.bytes(int(random.integers(800)))),
        _chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        _chunk(b"IHDR", header),
    ]
    chosen = b"".join(each for each in extra if chance(random, 0.2))
    data = zlib.compress(bytes(pick(random, (0, 100, 1 << 16, 1 << 22))))
    body = chosen + _chunk(b"IDAT", data) + (_chunk(b"IEND", b"") if chance(random, 0.8) else b"")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + body


@cache
def _text_bomb() -> bytes:
    return zlib.compress(bytes(1 << 25), 9)


def _tall(random: Random) -> bytes:
    """A whole image of a few kilobytes, thousands of times as long one way as the other."""
    sides = [(50_000_000, 1), (20_000_000, 2), (1, 65_500), (65_500, 1), (1_000_000, 3), (30, 60_000)]
    return _thin(pick(random, sides))


@cache
def _thin(size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("1", size).save(out, "PNG")
    return out.getvalue()


def _patched(random: Random) -> bytes:
    """An image of another format whose header states another size."""
    kind, where, layout = pick(
        random,
        (
            *(("BMP", 18, "<ii"), ("GIF", 6, "<HH"), ("WEBP", 26, "<HH"), ("PNG", 16, ">II")),
            *(("BMP", 28, "<HI"), ("BMP", 10, "<II"), ("BMP", 46, "<II")),
        ),
    )
    data = bytearray(picture(1, kind, "P" if kind == "GIF" else "RGB"))
    limit = 2 ** (16 if layout[-1] == "H" else 31) - 1
    values = [
        min(side, 65_535 if letter == "H" else limit) for side, letter in zip(_sides(random), layout[1:], strict=True)
    ]
    struct.pack_into(layout, data, where, *values)
    return bytes(data)


def _jpeg(random: Random) -> bytes:
    """A JPEG whose frame is of another size, or that has thousands of scans."""
    data = bytearray(picture(2, "JPEG", size=(64, 64), progressive=True))
    frame = data.find(b"\xff\xc2")
    if chance(random, 0.5):
        struct.pack_into(">HH", data, frame + 5, *(min(side, 65_535) for side in _sides(random)))
    if chance(random, 0.5):
        first = data.find(b"\xff\xda")
        second = data.find(b"\xff\xc4", first)
        scan = bytes(data[first : second if second > 0 else -2])
        data[first:first] = scan * int(pick(random, (10, 1000, 20_000)))
    return bytes(data)


def _tiff(random: Random) -> bytes:
    """A TIFF with tags of other values, directories in a ring, and every kind of compression."""
    method = pick(random, (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg", "tiff_adobe_deflate", "group4"))
    data = bytearray(picture(3, "TIFF", "1" if method == "group4" else "RGB", compression=method))
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for _ in range(int(random.integers(1, 4))):
        entry = at + 2 + 12 * int(random.integers(count))
        field = pick(random, ((0, "<H"), (2, "<H"), (4, "<I"), (8, "<I"), (8, "<I")))
        struct.pack_into(field[1], data, entry + field[0], pick(random, _SIDES) % 2 ** (16 if field[1] == "<H" else 32))
    if chance(random, 0.2):
        struct.pack_into("<I", data, at + 2 + 12 * count, at)
    return bytes(data)


def _animated(random: Random) -> bytes:
    """Many frames, of which the first is wanted."""
    kind = pick(random, ("GIF", "WEBP", "PNG", "TIFF"))
    return _frames(kind, pick(random, (2, 300)))


@cache
def _frames(kind: str, count: int) -> bytes:
    frames = [Image.fromarray(np.full((8, 8, 3), index % 256, dtype=np.uint8)) for index in range(count)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


def _ppm(random: Random) -> bytes:
    """Netpbm's headers are text, so numbers may have any length."""
    number = pick(random, (b"8", b"0", b"-8", b"60000", b"9" * 4000, b"1e9", b"", b"8 # x\n", b"99999999999999999999"))
    kind = pick(random, (b"P6", b"P5", b"P4", b"P3", b"P2", b"P1", b"Pf", b"P7", b"PF"))
    depth = pick(random, (b"255", b"65535", b"0", b"99999", number))
    return kind + b"\n" + number + b" 8\n" + depth + b"\n" + random.bytes(300)


def _odd(random: Random) -> bytes:
    """A whole image, of a size or kind that few send."""
    kind, mode = pick(random, _MODES)
    return picture(4, kind, mode, size=(int(random.integers(1, 40)), int(random.integers(1, 40))))


def _nothing(random: Random) -> bytes:
    markup = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/etc/passwd) (r) file\n"
    return pick(
        random, (b"", b"\0", b"\xff\xd8", markup, script, b"GIF89a", b"RIFF\xff\xff\xff\xffWEBPVP8 ", random.bytes(200))
    )


_WAYS: tuple[Callable[[Random], bytes], ...] = (
    *(_mangled, _mangled, _mangled, _cut, _png, _png, _patched, _patched, _jpeg, _tiff, _tiff, _tall, _animated, _ppm),
    *(_odd, _nothing),
)
