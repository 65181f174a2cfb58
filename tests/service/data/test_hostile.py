"""Damaged files of every format end in samples or in a `DataError`, never in anything else."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from service.data import DataError, open_split
from service.data.opening import Recipe
from tests.service.data.made import (
    PLAIN,
    encoded,
    pixels,
    png,
    tar_of,
    token_recipe,
    write_arrow,
    write_folders,
    write_parquet,
    write_shard,
    zip_of,
)

ROUNDS = 40


def parquet(folder: Path) -> Path:
    return write_parquet(folder / "blob", {"image": encoded(8), "label": [0, 1] * 4})


def arrow_stream(folder: Path) -> Path:
    return write_arrow(folder / "blob", pa.table({"image": encoded(8), "label": [[0, 1], [2]] * 4}))


def arrow_file(folder: Path) -> Path:
    table = pa.table({"image": encoded(8), "label": ["a", "b"] * 4})
    return write_arrow(folder / "blob", table, stream=False, compression="lz4")


def shard(folder: Path) -> Path:
    samples = [{"png": png(pixels(i)), "json": json.dumps({"label": i % 2}).encode()} for i in range(8)]
    return write_shard(folder / "blob", samples)


def tarred(folder: Path) -> Path:
    return tar_of(write_folders(folder / "d", {"a": 4, "b": 4}), folder / "blob", "w:gz")


def zipped(folder: Path) -> Path:
    return zip_of(write_folders(folder / "d", {"a": 4, "b": 4}), folder / "blob")


def arrays(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "blob", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in (("images", np.stack([pixels(i) for i in range(8)])), ("labels", np.arange(8) % 2)):
            out = io.BytesIO()
            np.save(out, array)
            archive.writestr(f"{name}.npy", out.getvalue())
    return folder / "blob"


def table(folder: Path) -> Path:
    rows = "".join(f'{i % 2},"good ""film"",\n and {i}"\n' for i in range(20))
    (folder / "blob").write_text(f"label,text\n{rows}")
    return folder / "blob"


def tabs(folder: Path) -> Path:
    (folder / "blob").write_text("label\ttext\n" + "".join(f'{i % 2}\t"good film {i}\n' for i in range(20)))
    return folder / "blob"


def lines(folder: Path) -> Path:
    rows = [json.dumps({"text": f"good film {i}", "label": [i % 3]}) for i in range(20)]
    (folder / "blob").write_text("\n".join(rows))
    return folder / "blob"


IMAGES = (parquet, arrow_stream, arrow_file, shard, tarred, zipped, arrays)
TEXTS = (table, tabs, lines)


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Returns the content with some bytes changed, a stretch moved or doubled, or its end cut off."""
    broken = bytearray(content)
    start, length = int(rng.integers(len(broken))), int(rng.integers(1, 64))
    kind = rng.integers(5)
    if kind == 0:
        return bytes(broken[:start])
    if kind == 1:
        broken[start : start + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    elif kind == 2:
        other = int(rng.integers(len(broken)))
        broken[start:start] = broken[other : other + length]
    elif kind == 3:
        broken[start : start + 8] = int(rng.integers(2**63)).to_bytes(8, "little")
    else:
        for _ in range(8):
            broken[int(rng.integers(len(broken)))] ^= 1 << int(rng.integers(8))
    return bytes(broken)


@pytest.mark.parametrize("write", [*IMAGES, *TEXTS], ids=lambda write: write.__name__)
def test_damage_is_told_or_passed_over(tmp_path: Path, write: Callable[[Path], Path]):
    recipe: Recipe = PLAIN if write in IMAGES else token_recipe(tmp_path)
    content = write(tmp_path).read_bytes()
    rng = np.random.default_rng(7)
    for _ in range(ROUNDS):
        (tmp_path / "broken").write_bytes(damaged(content, rng))
        with suppress(DataError):
            split = open_split(tmp_path / "broken", "FORMAT_UNSPECIFIED", recipe, tmp_path, "data.train")
            split.batch(range(len(split)))
