"""Broken Parquet and Arrow: odd types, metadata that lies, rows that unfold, footers that point elsewhere."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import pyarrow as pa

from benchmarks.fuzz.data_seeds import SAMPLES, arrow_of, image_cells, parquet_of, sentences
from benchmarks.fuzz.picture_cases import hostile_picture
from benchmarks.fuzz.values import INTEGERS, PATHS, STRINGS, Random, chance, mangle, pick

_COUNT = SAMPLES
_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_CODECS = ("snappy", "none", "zstd", "gzip", "brotli", "lz4")


def broken_table(random: Random) -> tuple[str, bytes]:
    """Returns which network the table is for, and the table."""
    recipe = pick(random, ("images", "images", "texts", "texts", "gray"))
    kind = int(random.integers(10))
    if kind == 0:
        return recipe, _unfolding(random, recipe)
    table = _table(random, recipe)
    if chance(random, 0.4):
        table = table.replace_schema_metadata(_metadata(random))
    data = _written(random, table)
    if kind < 5:
        data = _damaged(random, data)
    return recipe, data


def _table(random: Random, recipe: str) -> pa.Table:
    odd = pick(random, ("label", "samples", "both", "neither"))
    samples = _images(random) if recipe != "texts" else _plain_texts()
    if odd in {"samples", "both"}:
        samples = pick(random, _SAMPLES)(random)
    labels = pa.array([index % 2 for index in range(_COUNT)])
    if odd in {"label", "both"}:
        labels = pick(random, _LABELS)(random)
    name = pick(random, ("image", "img")) if recipe != "texts" else pick(random, ("text", "sentence"))
    names, columns = [name, pick(random, ("label", "labels", "category"))], [samples, labels]
    while chance(random, 0.3):
        names.append(
            pick(random, (*STRINGS[:20], name, "label", "bytes", "path", "a\ud800".encode("utf-8", "ignore").decode()))
        )
        columns.append(pick(random, (samples, labels, pa.nulls(_COUNT))))
    length = min(len(column) for column in columns)
    return pa.Table.from_arrays([column[:length] for column in columns], names=names)


def _plain_texts() -> pa.Array:
    return pa.array(sentences())


def _images(random: Random) -> pa.Array:
    cells: list[Any] = image_cells()
    for _ in range(int(pick(random, (0, 1, 1, 3, 24)))):
        cells[int(random.integers(len(cells)))] = {
            "bytes": hostile_picture(random),
            "path": str(pick(random, PATHS)).strip("\ud7ff"),
        }
    if chance(random, 0.3):
        cells[0] = pick(random, (None, {"bytes": None, "path": "/etc/passwd"}, {"bytes": b"", "path": None}))
    return pa.array(cells, _STRUCT)


def _of(values: Any, kind: pa.DataType | None = None) -> Callable[[Random], pa.Array]:
    def make(random: Random) -> pa.Array:
        some = values(random) if callable(values) else values
        return pa.array([some[index % len(some)] for index in range(_COUNT)], kind)

    return make


def _dictionary(random: Random) -> pa.Array:
    made = _plain_texts().dictionary_encode()
    return pick(
        random,
        (
            made,
            pa.array(["a", "b"] * 12).dictionary_encode(),
            pa.DictionaryArray.from_arrays(pa.array([0] * _COUNT, pa.int8()), pa.array([b"x"])),
        ),
    )


_LABELS: tuple[Callable[[Random], pa.Array], ...] = (
    *(_of([0, 1], kind) for kind in (pa.int8(), pa.uint64(), pa.float32(), pa.float16(), pa.decimal128(9))),
    *(_of([value, 1], pa.int64()) for value in (-1, -2, None, 2**63 - 1, -(2**63), 10**6)),
    *(_of([2**64 - 1, 1], pa.uint64()), _of([float("nan"), 1.0]), _of([float("inf"), 0.5]), _of([1.0, 2.0, None])),
    *(_of([0], pa.timestamp("ns")), _of([None], pa.null()), _of([b"a", b"b"])),
    *(
        _of(["a", "b"]),
        _of(["a", "b"], pa.large_string()),
        _of(["a", "1"]),
        _of(["a" * 70_000, "\0"]),
        _of(["a\nb", ""]),
    ),
    *(
        _of(["a", None], pa.string_view()),
        _of([[0, 1], [1, 0]]),
        _of([[0, 1], []]),
        _of([[0, 1], None]),
        _of([[-1], [0]]),
    ),
    *(
        _of([["a"], ["b", "c"]]),
        _of([[0, 1], [1, 1]], pa.list_(pa.int8(), 2)),
        _of([[0, 2], None], pa.list_(pa.int8(), 2)),
    ),
    *(_of([[]], pa.list_(pa.int8(), 0)), _of([[0.5, 1.0]], pa.list_(pa.float32(), 2)), _of([[[0]], [[1, 2]]])),
    *(
        _of([[2**62], [0]]),
        _of([{"a": 1}]),
        _of([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        _of([[float("nan")], [1.0]]),
    ),
    *(_of([10**6 - 1, 0]), _of([[10**6 - 1], [0]]), _of([[None, 1], [2]]), _of([["a", None], ["b"]]), _dictionary),
    lambda _: pa.RunEndEncodedArray.from_arrays(pa.array([_COUNT], pa.int32()), pa.array([1])),
)
_SAMPLES: tuple[Callable[[Random], pa.Array], ...] = (
    *(
        _of([b"x", b""]),
        _of([b"x", None], pa.large_binary()),
        _of([b"x"], pa.binary_view()),
        _of([b"12345678"], pa.binary(8)),
    ),
    *(_of(["x", "y"]), _of([1, 2]), _of([None]), _of([[1, 2]]), _of([{"bytes": 1}]), _of([{"bytes": {"bytes": b"x"}}])),
    *(_of([{"bytes": "x"}]), _of([{"bytes": b"x"}, None]), _of([{}], pa.struct([])), _of([[{"bytes": b"x"}]])),
    *(
        _of([b"x", b"y"], pa.dictionary(pa.int8(), pa.binary())),
        _dictionary,
        _of(["", " ", None]),
        _of(["a\0b", "\ufeff"]),
    ),
    *(_of(["x" * 1_100_000, "a"]), _of(["\u202e\u2066", "a"]), _of(["x" * 300_000, "a"], pa.large_string())),
    *(_of(["x", None], pa.string_view()), _of([True]), _of([1.5]), _of([[b"x"]]), _of([b"x"], pa.list_(pa.uint8()))),
)


@cache
def _deep(depth: int) -> str:
    return '{"info":' * depth + "1" + "}" * depth


def _metadata(random: Random) -> dict[str, str]:
    names = pick(
        random,
        (["cat", "dog"], ["cat"], [], [1, 2], "cat", None, ["cat", "cat"], [["a"]], ["a\nb" * 2000, "b"], ["x"] * 9999),
    )
    feature: Any = pick(
        random,
        ({"names": names}, {"feature": {"names": names}}, [{"names": names}], names, {"feature": {"feature": 3}}),
    )
    text = json.dumps({"info": {"features": {"label": feature, "labels": feature, "image": feature}}})
    return {
        "huggingface": pick(
            random, (text, text, text, "{", "[]", "null", _deep(3), _deep(100_000), '{"info": []}', "\0", "9" * 5000)
        )
    }


def _written(random: Random, table: pa.Table) -> bytes:
    """Writes a table in any way; where a format does not know a type, in one that does."""
    try:
        if chance(random, 0.5):
            version = pick(random, ("1.0", "2.0"))
            size = int(pick(random, (1, 7, 100)))
            return parquet_of(
                table,
                compression=pick(random, _CODECS),
                data_page_version=version,
                row_group_size=size,
                use_dictionary=chance(random, 0.5),
                write_statistics=chance(random, 0.5),
            )
        return arrow_of(table, stream=chance(random, 0.6), compression=pick(random, (None, None, "lz4", "zstd")))
    except (pa.ArrowException, ValueError):
        return arrow_of(table, stream=True)


def _damaged(random: Random, data: bytes) -> bytes:
    """Breaks bytes anywhere, or in the footer, where the places of everything else are written."""
    kind = int(random.integers(5))
    if kind == 0:
        return mangle(random, data, data)
    if kind == 1:
        place = pick(random, (-8, -10))
        length = struct.pack("<I", int(pick(random, INTEGERS)) % 2**32)
        return data[:place] + length + data[place + 4 :]
    if kind == 2:
        return data[: int(random.integers(len(data)))] + data[-int(random.integers(1, 600)) :]
    broken = bytearray(data)
    window = range(max(0, len(data) - 900), len(data)) if kind == 3 else range(min(len(data), 900))
    for _ in range(int(random.integers(1, 6))):
        place = int(window[int(random.integers(len(window)))])
        broken[place] = pick(random, (0, 1, 0x7F, 0x80, 0xFF, broken[place] ^ 1, broken[place] ^ 0x80))
    return bytes(broken)


def _unfolding(random: Random, recipe: str) -> bytes:
    """A few kilobytes that say the same thing very often."""
    count = int(pick(random, (1000, 200_000)))
    return _repeated(recipe == "texts", count, int(pick(random, (10, 10_000))))


@cache
def _repeated(text: bool, count: int, size: int) -> bytes:
    indices = pa.nulls(count, pa.int32()).fill_null(0)
    word = pa.array(["good " * size]) if text else pa.array([bytes(size)])
    samples = pa.DictionaryArray.from_arrays(indices, word)
    table = pa.table({"text" if text else "image": samples, "label": pa.nulls(count, pa.int8()).fill_null(1)})
    return parquet_of(table, row_group_size=count)
