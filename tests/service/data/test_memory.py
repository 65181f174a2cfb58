"""Memory does not grow with the data: sources several times larger than what reading them may take."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.data import open_split
from service.data.opening import Recipe
from tests.service.data.made import PLAIN, png, token_recipe, write_shard

STATUS = Path("/proc/self/status")
ALLOWED = 32 * 2**20
SIZE = 64 * 2**20
PNG_SIDE, LONG_TEXT = 256, 20_000

pytestmark = pytest.mark.skipif(not STATUS.exists(), reason="the system does not tell a process's own memory")


def own_memory() -> int:
    """Returns the bytes that only this process has: what is mapped from files can be dropped at any time."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def photos() -> Iterator[bytes]:
    """Yields files of noise, which does not compress, until they are `SIZE` together."""
    rng = np.random.default_rng(0)
    some = [png(rng.integers(0, 256, (PNG_SIDE, PNG_SIDE, 3), dtype=np.uint8)) for _ in range(8)]
    for number in range(SIZE // len(some[0])):
        yield some[number % 8]


def as_shards(folder: Path) -> tuple[Path, Recipe]:
    samples = [{"png": image, "cls": str(number % 2).encode()} for number, image in enumerate(photos())]
    return write_shard(folder / "train-000000.tar", samples), PLAIN


def as_parquet(folder: Path) -> tuple[Path, Recipe]:
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    with pq.ParquetWriter(folder / "blob", schema, compression="none") as writer:
        for number, image in enumerate(photos()):
            writer.write_batch(pa.record_batch({"image": [image], "label": [number % 2]}, schema))
    return folder / "blob", PLAIN


def as_arrow(folder: Path) -> tuple[Path, Recipe]:
    schema = pa.schema([("image", pa.binary()), ("label", pa.int64())])
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(str(folder / "blob"), schema, options=options) as writer:
        for number, image in enumerate(photos()):
            writer.write_batch(pa.record_batch({"image": [image], "label": [number % 2]}, schema))
    return folder / "blob", PLAIN


def as_csv(folder: Path) -> tuple[Path, Recipe]:
    with (folder / "blob").open("w") as out:
        out.write("text,label\n")
        for number in range(SIZE // LONG_TEXT):
            out.write(f'"{"good film, " * (LONG_TEXT // 11)}",{number % 2}\n')
    return folder / "blob", token_recipe(folder)


def as_jsonl(folder: Path) -> tuple[Path, Recipe]:
    with (folder / "blob").open("w") as out:
        for number in range(SIZE // LONG_TEXT):
            out.write(json.dumps({"text": "good film " * (LONG_TEXT // 10), "label": number % 2}) + "\n")
    return folder / "blob", token_recipe(folder)


@contextmanager
def highest() -> Iterator[list[int]]:
    """Yields a list that holds the most memory of the process while the block runs, looked at now and then."""
    most, done = [own_memory()], Event()

    def watch() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], own_memory())

    thread = Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("write", [as_shards, as_parquet, as_arrow, as_csv, as_jsonl])
def test_memory_stays_where_it_was(tmp_path: Path, write: Callable[[Path], tuple[Path, Recipe]]):
    path, recipe = write(tmp_path)
    assert path.stat().st_size > 0.9 * SIZE or write is as_arrow
    gc.collect()
    before = own_memory()
    with highest() as most:
        split = open_split(path, "FORMAT_UNSPECIFIED", recipe, tmp_path, "data.train")
        order = np.random.default_rng(1).permutation(len(split))
        for start in range(0, len(split), 16):
            split.batch(order[start : start + 16].tolist())
    assert most[0] - before < ALLOWED
