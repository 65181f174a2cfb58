"""Small image files of every format, made on the spot."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from compressors.graph import TensorSpec
from service.data import ResolvedPreprocessing, TokenRecipe, load_tokenizer

PLAIN = ResolvedPreprocessing((3, 8, 8), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""The recipe that gives back the pixels, divided by 255."""


def pixels(seed: int, height: int = 8, width: int = 8, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Returns random pixels (height, width, channels)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(array: npt.NDArray[np.uint8]) -> bytes:
    """Returns the pixels as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array).save(out, "PNG")
    return out.getvalue()


def write_folders(root: Path, per_class: dict[str, int], size: int = 8) -> Path:
    """Writes a folder of class folders; image i of all has `pixels(i)`."""
    seed = 0
    for name, count in per_class.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            (root / name / f"{index:03}.png").write_bytes(png(pixels(seed, size, size)))
            seed += 1
    return root


def write_parquet(file: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    """Writes Parquet, with Hugging Face metadata where `features` are given."""
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, file, row_group_size=7)
    return file


def encoded(count: int) -> list[dict[str, Any]]:
    """Returns image cells as Hugging Face stores them; image i has `pixels(i)`."""
    return [{"bytes": png(pixels(index)), "path": f"{index}.png"} for index in range(count)]


def write_tar(file: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """Writes a tar archive with exactly these members."""
    with tarfile.open(file, "w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def tar_of(folder: Path, file: Path, mode: str = "w") -> Path:
    """Writes a tar archive of a folder's content."""
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        archive.add(folder, arcname=".")
    return file


def write_shard(file: Path, samples: list[dict[str, bytes]], first: int = 0) -> Path:
    """Writes a WebDataset shard; the members of sample i are called `000i` and what they are."""
    members = [
        (tarfile.TarInfo(f"{first + number:04}.{kind}"), content)
        for number, sample in enumerate(samples)
        for kind, content in sample.items()
    ]
    return write_tar(file, members)


def write_arrow(file: Path, table: pa.Table, *, stream: bool = True, compression: str | None = None) -> Path:
    """Writes Arrow as a stream or a file, in batches of seven rows."""
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(file), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=7)
    return file


def zip_of(folder: Path, file: Path) -> Path:
    """Writes a zip archive of a folder's content."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return file


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a", "very")


def write_tokenizer(folder: Path, **settings: Any) -> Path:
    """Writes a word-level tokenizer in BERT's manner; word i of `WORDS` is token i."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", **settings}))
    return folder


def token_inputs(length: int = 6, *names: str) -> tuple[TensorSpec, ...]:
    """Returns the inputs of a model that knows `WORDS`."""
    high = {"input_ids": len(WORDS), "attention_mask": 2, "token_type_ids": 2}
    wanted = names or ("input_ids", "attention_mask", "token_type_ids")
    return tuple(TensorSpec(name, (length,), torch.int64, 0, high.get(name, len(WORDS))) for name in wanted)


def token_recipe(folder: Path, length: int = 6, *names: str) -> TokenRecipe:
    """Returns how texts become the inputs of such a model."""
    return TokenRecipe(token_inputs(length, *names), load_tokenizer(write_tokenizer(folder / "model"), length))
