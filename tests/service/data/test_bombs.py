"""Small files that become large: images, and rows of tables."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.data import DataError, open_split, rows
from tests.service.data.made import PLAIN, encoded, pixels, png, write_parquet, write_shard

COUNT = 60
SIDE = 40_000


def bomb() -> bytes:
    """A PNG of a few hundred bytes whose header states 1.6 thousand million pixels."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(1 << 16))) + part(b"IEND", b"")
    )


def in_parquet(folder: Path) -> Path:
    images = [*encoded(COUNT), {"bytes": bomb(), "path": None}]
    return write_parquet(folder / "blob", {"image": images, "label": [i % 2 for i in range(COUNT + 1)]})


def in_a_shard(folder: Path) -> Path:
    samples = [{"png": png(pixels(i)), "cls": str(i % 2).encode()} for i in range(COUNT)]
    return write_shard(folder / "blob", [*samples, {"png": bomb(), "cls": b"1"}])


@pytest.mark.parametrize("write", [in_parquet, in_a_shard])
def test_an_image_is_judged_by_its_header(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    split = open_split(write(tmp_path), "FORMAT_UNSPECIFIED", PLAIN, tmp_path, "data.train")

    assert (split.broken, len(split)) == (1, COUNT)


def rows_of_zeros(folder: Path) -> Path:
    """64 MiB in a file of some kilobytes."""
    table = pa.table({"image": [bytes(1 << 20)] * 64, "label": [0, 1] * 32})
    pq.write_table(table, folder / "blob", compression="zstd")
    assert (folder / "blob").stat().st_size < 1 << 18
    return folder / "blob"


@pytest.mark.parametrize(("cap", "words"), [("_BATCH_BYTES", "rows unpack"), ("MAX_COPY_BYTES", "unpack to more")])
def test_rows_that_unpack_to_more_than_is_taken_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cap: str, words: str
) -> None:
    monkeypatch.setattr(rows, cap, 1 << 19)
    with pytest.raises(DataError, match=words):
        open_split(rows_of_zeros(tmp_path), "FORMAT_UNSPECIFIED", PLAIN, tmp_path, "data.train")
