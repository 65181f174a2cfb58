"""Broken NumPy archives: headers that state other shapes and types than there are bytes, and labels that are none."""

from __future__ import annotations

import io
import struct
import zipfile
from functools import cache

import numpy as np

from benchmarks.fuzz.data_seeds import SAMPLES, npz_of
from benchmarks.fuzz.values import FLOATS, INTEGERS, Random, chance, integer, mangle, pick

_NAMES = (
    *("images", "x", "X", "labels", "y", "Y", "input_ids", "attention_mask", "token_type_ids", "left", "timestep", "z"),
    *("top/images", "../images", "images.npy", "", "a\nb", "é" * 300, "\u202e"),
)
_DESCRIPTIONS = (
    *(
        "'|u1'",
        "'<f4'",
        "'>f8'",
        "'<f2'",
        "'<i8'",
        "'>i2'",
        "'|b1'",
        "'<c16'",
        "'|O'",
        "'|O8'",
        "'<U9'",
        "'|S1000000000'",
    ),
    *("'<M8[ns]'", "'|V8'", "[('a', '<i4')]", "[('a', '|O')]", "[('a', '<i4', (2**40,))]", "'<u8'", "'x'", "3", "None"),
    *("[]", "('<i4', (9,))", "'<i4,<i4'", "{'names': ['a'], 'formats': ['|O']}", "'<f16'", "'|S0'", "'<V0'", "'q' * 9"),
)
_SHAPES = (
    *(
        "(24, 8, 8, 3)",
        "(24, 3, 8, 8)",
        "(24,)",
        "(24, 6)",
        "()",
        "(0,)",
        "(0, 8, 8, 3)",
        "(24, 0, 0, 3)",
        "(24, 8, 8)",
    ),
    *(
        "(-1, 8, 8, 3)",
        "(2**40, 8, 8, 3)",
        "(1099511627776, 8, 8, 3)",
        "(9223372036854775807,)",
        "(24, 8, 8, 3, 0)",
        "24",
    ),
    *(
        "(4611686018427387904, 4)",
        "(24, 1, 1, 4608)",
        "[24]",
        "('a',)",
        "(24.0, 8)",
        "(True,)",
        "None",
        "(1,) * 99",
        "(2, 3",
    ),
    *(
        "(" + "1, " * 70 + ")",
        "(" + "0, " * 40 + ")",
        "(24, 16, 12, 1)",
        "(1000000, 0)",
        "(24, 1, 50000000)",
        "(24, -8, -8, 3)",
    ),
    *("(99999999999999999999,)", "(" * 500 + ")" * 500, "(1" + "0" * 5000 + ",)", "(24, 9, 9, 4)", "(24, 8, 8, 1)"),
)
_HEADERS = (
    "{}",
    "[]",
    "",
    "{'descr': '|u1'}",
    "\0" * 64,
    "{" * 9000,
    "__import__('os').system('x')",
    "1" * 100_000,
    "\xff",
    "{'descr': '|u1', 'fortran_order': 1, 'shape': (1,)}",
)


def broken_arrays(random: Random) -> tuple[str, bytes]:
    """Returns which network the archive is for, and the archive."""
    recipe = pick(random, ("images", "images", "gray", "larger", "raw", "feeds", "pictures"))
    if chance(random, 0.4):
        return recipe, _valued(random, recipe)
    entries = {}
    for name in _wanted(recipe):
        if chance(random, 0.9):
            entries[name] = _array(random) if chance(random, 0.6) else _good(name)
    while not entries or chance(random, 0.2):
        entries[pick(random, _NAMES)] = _array(random)
    return recipe, _zipped(random, entries)


def _wanted(recipe: str) -> tuple[str, ...]:
    names = {"feeds": ("input_ids", "attention_mask", "token_type_ids", "labels"), "pictures": ("x", "left", "y")}
    return names.get(recipe, ("images", "labels"))


@cache
def _good(name: str) -> bytes:
    random = np.random.default_rng(0)
    if name in {"labels", "y"}:
        values = np.arange(SAMPLES) % 2
    elif name in {"images", "x", "left"}:
        values = random.integers(0, 256, (SAMPLES, 8, 8, 3), dtype=np.uint8)
    else:
        values = np.ones((SAMPLES, 6), dtype=np.int64)
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def _array(random: Random) -> bytes:
    """Returns a `.npy` of which the header, or the content, or both are made up."""
    if chance(random, 0.15):
        good = _good(pick(random, ("labels", "images", "input_ids")))
        return mangle(random, good, good)
    header = pick(random, _HEADERS)
    if chance(random, 0.9):
        order = pick(random, ("False", "False", "True", "1", "'x'"))
        header = (
            f"{{'descr': {pick(random, _DESCRIPTIONS)}, 'fortran_order': {order}, 'shape': {pick(random, _SHAPES)}, }}"
        )
    version = pick(random, ((1, 0), (1, 0), (2, 0), (3, 0), (9, 9), (0, 0)))
    text = header.encode("utf-8")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    layout = "<H" if version[0] == 1 else "<I"
    length = len(text) if chance(random, 0.9) else int(pick(random, INTEGERS))
    size = struct.pack(layout, length % 2 ** (16 if layout == "<H" else 32))
    body = random.bytes(int(pick(random, (0, 1, 24, 24 * 192, 24 * 192 * 4, 24 * 192 * 8))))
    return b"\x93NUMPY" + bytes(version) + size + text + body


def _zipped(random: Random, entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", pick(random, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), data)
    made = out.getvalue()
    return mangle(random, made, made) if chance(random, 0.1) else made


def _valued(random: Random, recipe: str) -> bytes:
    """Whole arrays with values that are none."""
    count = int(pick(random, (1, 5, SAMPLES, SAMPLES, 300)))
    arrays = {name: _content(random, name, count) for name in _wanted(recipe)}
    return npz_of(arrays)


def _content(random: Random, name: str, count: int) -> np.ndarray:
    kind = pick(random, ("u1", "i1", "i8", "u8", "f4", "f8", "f2", "b1", "u2", "i8", "u1"))
    if name in {"labels", "y"}:
        shape: tuple[int, ...] = pick(
            random, ((count,), (count, 1), (count, 3), (count, 4), (count + 1,), (count, 2, 2), (count, 0))
        )
    elif name in {"images", "x", "left"}:
        sides = (
            (8, 8, 3),
            (3, 8, 8),
            (8, 8),
            (8, 8, 1),
            (1, 1, 3),
            (1, 3000, 3),
            (200, 1),
            (40, 30, 3),
            (8, 8, 4),
            (0, 8, 3),
        )
        shape = (count, *pick(random, sides))
    else:
        shape = pick(random, ((count, 6), (count, 6), (count, 7), (count,), (count + 1, 6), (count, 0)))
    values = np.asarray(random.integers(0, 2 if name != "input_ids" else 9, shape)).astype(kind)
    if chance(random, 0.4) and values.size:
        flat = values.reshape(-1)
        with np.errstate(all="ignore"):
            wrong = pick(random, FLOATS) if flat.dtype.kind == "f" else integer(random)
            flat[int(random.integers(flat.size))] = np.asarray([wrong]).astype(flat.dtype, casting="unsafe")[0]
    return values
