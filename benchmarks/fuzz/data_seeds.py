"""Good data to start from: every format, small, made on the spot."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SAMPLES = 24
"""In each, so that one that is broken is passed over."""

_TEXTS = ("a good film", 'a "very" bad film', "good, good; good", "bad\tbad", "très bon", "a\u202eb", "film " * 40)


@dataclass(frozen=True)
class Seed:
    """Good data.

    Attributes:
        recipe: Which network it is for, one of `benchmarks.fuzz.data_opening.RECIPES`.
        data: The file.
    """

    recipe: str
    data: bytes


@cache
def seeds() -> tuple[Seed, ...]:
    """Returns one of each kind."""
    labels = [index % 2 for index in range(SAMPLES)]
    names = ["cat" if label else "dog" for label in labels]
    sets = [[0, 2] if label else [1] for label in labels]
    images, texts = image_cells(), list(sentences())
    described = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    tables = [
        Seed("images", parquet_of(pa.table({"image": images, "label": labels}), described)),
        Seed("images", parquet_of(pa.table({"image": [cell["bytes"] for cell in images], "label": names}))),
        Seed("texts", parquet_of(pa.table({"sentence1": texts, "sentence2": texts, "label": sets}))),
        Seed("images", arrow_of(pa.table({"image": images, "label": sets}), stream=True)),
        Seed("images", arrow_of(pa.table({"image": images, "label": labels}), stream=False, compression="lz4")),
        Seed("texts", arrow_of(pa.table({"text": pa.array(texts).dictionary_encode(), "label": names}), stream=True)),
    ]
    plain = tar_of(folder_entries())
    packed = [
        *(Seed("images", zip_of(folder_entries())), Seed("images", plain), Seed("images", tar_of(shard_entries()))),
        *(Seed("images", tar_of(folder_entries(), mode)) for mode in ("w:gz", "w:bz2", "w:xz")),
        Seed("images", zip_of(split_entries())),
    ]
    return (*packed, *tables, *_arrays(labels), *_lines(texts, labels))


def _arrays(labels: Sequence[int]) -> list[Seed]:
    pixels = np.random.default_rng(0).integers(0, 256, (SAMPLES, 8, 8, 3), dtype=np.uint8)
    ids = np.random.default_rng(0).integers(0, 9, (SAMPLES, 6))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return [
        Seed("images", npz_of({"images": pixels, "labels": np.asarray(labels)})),
        Seed("images", npz_of({"x": np.repeat(pixels, 2, axis=1), "y": np.eye(3, dtype=np.int64)[[0, 1, 2] * 8]})),
        Seed("raw", npz_of({"x": pixels.transpose(0, 3, 1, 2).astype(np.float32)})),
        Seed("feeds", npz_of({**feeds, "labels": np.asarray(labels)})),
    ]


def _lines(texts: Sequence[str], labels: Sequence[int]) -> list[Seed]:
    quoted = [f'"{text.replace(chr(34), chr(34) * 2)}"' for text in texts]
    pairs = list(zip(quoted, labels, strict=True))
    plain = [text.replace("\t", " ") for text in texts]
    return [
        Seed("texts", ("text,label\n" + "".join(f"{text},{label}\n" for text, label in pairs)).encode()),
        Seed("texts", ("label\ttext\r\n" + "".join(f"{i % 2}\t{text}\r\n" for i, text in enumerate(plain))).encode()),
        Seed(
            "texts",
            "".join(f"{json.dumps({'text': t, 'label': n})}\n" for t, n in zip(texts, labels, strict=True)).encode(),
        ),
    ]


def sentences() -> list[str]:
    """Returns one text for each sample."""
    return [f"{_TEXTS[index % len(_TEXTS)]} {index}" for index in range(SAMPLES)]


@cache
def pictures() -> tuple[bytes, ...]:
    """Returns one small image for each sample, in every format and mode."""
    made = []
    kinds = (
        *(("PNG", "RGB"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("BMP", "RGB"), ("GIF", "P"), ("TIFF", "RGB")),
        *(("PPM", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "I;16"), ("JPEG", "CMYK")),
        *(("TIFF", "CMYK"), ("PNG", "1"), ("JPEG", "L"), ("PNG", "LA")),
    )
    for index in range(SAMPLES):
        kind, mode = kinds[index % len(kinds)]
        made.append(picture(index, kind, mode))
    return tuple(made)


def picture(seed: int, kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    """Returns an image of noise; `size` is (width, height)."""
    random = np.random.default_rng(seed)
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65_536, size[::-1], dtype=np.uint16))
    else:
        image = Image.fromarray(random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@cache
def folder_entries() -> tuple[tuple[str, bytes], ...]:
    """Returns class folders: names and contents."""
    return tuple((f"{'cat' if index % 2 else 'dog'}/{index:03}.img", data) for index, data in enumerate(pictures()))


def split_entries() -> tuple[tuple[str, bytes], ...]:
    """Returns class folders for training and for validation."""
    return tuple((f"data/{split}/{name}", data) for split in ("train", "val") for name, data in folder_entries())


def shard_entries() -> tuple[tuple[str, bytes], ...]:
    """Returns the members of a WebDataset shard."""
    found: list[tuple[str, bytes]] = []
    for index, data in enumerate(pictures()):
        found.append((f"{index:04}.png", data))
        found.append((f"{index:04}.json", json.dumps({"label": index % 3}).encode()))
    return tuple(found)


def image_cells() -> list[dict[str, Any]]:
    """Returns images as Hugging Face stores them."""
    return [{"bytes": data, "path": f"{index}.png"} for index, data in enumerate(pictures())]


def parquet_of(table: pa.Table, features: Mapping[str, Any] | None = None, **options: Any) -> bytes:
    """Returns a table as Parquet, with Hugging Face's metadata where `features` are given."""
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    out = io.BytesIO()
    pq.write_table(table, out, **{"row_group_size": 7, **options})
    return out.getvalue()


def arrow_of(table: pa.Table, *, stream: bool, compression: str | None = None) -> bytes:
    """Returns a table as an Arrow stream or file."""
    out = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=7)
    return out.getvalue()


def npz_of(arrays: Mapping[str, Any]) -> bytes:
    """Returns a NumPy archive."""
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def zip_of(entries: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Returns a zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def tar_of(entries: Sequence[tuple[str, bytes]], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    """Returns a tar, compressed where the mode says so."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
