"""What a stranger may upload: models, data and tokenizers, whole and broken, and what is none of them."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from torch import nn

from benchmarks.fuzz import data_cases, onnx_cases, pt2_cases, tokenizer_cases
from benchmarks.fuzz.data_opening import HOW, LENGTH
from benchmarks.fuzz.data_seeds import zip_of
from benchmarks.fuzz.tokenizer_seeds import WORDS, files_of_words
from benchmarks.fuzz.values import PATHS, Random, chance, mangle, pick
from protos.shoal.v1 import model_optimizer_pb2 as pb

_NAMES: Final = {
    "pt2": ("net.pt2", "model.pt2", "net.onnx"),
    "onnx": ("net.onnx", "net.zip", "net.pt2"),
    "folder": ("model.zip", "model.tar", "bert"),
    "data": ("data", "data.zip", "train.parquet", "data.tar.gz", "texts.csv", "lines.jsonl", "arrays.npz", "x.arrow"),
    "junk": ("net.pt2", "net.onnx", "data.zip", "data.tar"),
}
_STARTS: Final = (b"PK\x03\x04", b"\x08\x07\x12", b"", b"wds", b"\x1f\x8b\x08", b"PAR1", b"\x80\x02")
MOST_BYTES: Final = 8 << 20
"""Of one file; more of the same takes time and shows nothing."""


@dataclass(frozen=True)
class Upload:
    """A file to send.

    Attributes:
        what: `pt2`, `onnx`, `folder`, `data` or `junk`.
        kind: What it is announced as.
        filename: What it is called.
        data: Its bytes.
        how: Of data: the columns and format that a job states, and which network it is for.
    """

    what: str
    kind: int
    filename: str
    data: bytes
    how: str = "{}"


def any_file(random: Random) -> Upload:
    """Returns a file of any kind, in most cases announced as what it is."""
    what = pick(random, ("pt2", "onnx", "folder", "data", "data", "data", "junk"))
    made = {"pt2": _pt2, "onnx": _onnx, "folder": _folder, "data": _data, "junk": _junk}[what](random)
    if chance(random, 0.9):
        return made
    odd = (int(pick(random, (0, 1, 2, 3, 4, 9))), str(pick(random, (*PATHS, *_NAMES["junk"]))).strip("\ud7ff"))
    return Upload(made.what, *odd, made.data, made.how)


def any_job(random: Random) -> tuple[Upload, Upload | None]:
    """Returns a model and samples: one of them is good, or both are; in some cases there are no samples."""
    data = _data(random)
    if chance(random, 0.6):
        texts = json.loads(data.how)["recipe"] in {"texts", "feeds"}
        return (good_folder() if texts else good_pt2()), data
    model = pick(random, (_pt2, _onnx, _folder))(random)
    return model, data if chance(random, 0.8) else None


def _named(random: Random, what: str, data: bytes, how: str = "{}") -> Upload:
    kind = pb.ARTIFACT_KIND_DATA if what == "data" else pb.ARTIFACT_KIND_MODEL
    return Upload(what, kind, str(pick(random, _NAMES[what])), data[:MOST_BYTES], how)


def _pt2(random: Random) -> Upload:
    return _named(random, "pt2", next(iter(_drawn(random, pt2_cases).values())))


def _onnx(random: Random) -> Upload:
    files = _drawn(random, onnx_cases)
    packed = len(files) > 1 and chance(random, 0.5)
    return _named(random, "onnx", zip_of(list(files.items())) if packed else next(iter(files.values())))


def _folder(random: Random) -> Upload:
    """A folder of a model, of which the tokenizer, the configuration or the archive is broken."""
    if chance(random, 0.3):
        return _named(random, "folder", next(iter(_drawn(random, tokenizer_cases).values())))
    entries = dict(_bert())
    name = pick(random, list(entries))
    entries[name] = mangle(random, entries[name], pick(random, list(entries.values())))
    return _named(random, "folder", zip_of(list(entries.items())))


def _data(random: Random) -> Upload:
    files = _drawn(random, data_cases)
    return _named(random, "data", files["upload"], files[HOW].decode())


def _junk(random: Random) -> Upload:
    start = bytes(pick(random, _STARTS))
    data = mangle(random, start + random.bytes(int(pick(random, (1, 100, 5000)))), start * 20)
    return _named(random, "junk", data)


def _drawn(random: Random, cases: Any) -> dict[str, bytes]:
    return dict(pick(random, _whole(cases)) if chance(random, 0.2) else cases.build(random))


@cache
def _whole(cases: Any) -> Sequence[dict[str, bytes]]:
    return tuple(cases.whole())


@cache
def good_pt2() -> Upload:
    """Returns a network of images of 8 x 8, with two classes."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    out, batch = io.BytesIO(), torch.export.Dim("batch", min=1, max=1024)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model.eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
        torch.export.save(program, out)
    return Upload("pt2", pb.ARTIFACT_KIND_MODEL, "good.pt2", out.getvalue())


@cache
def good_folder() -> Upload:
    """Returns a network of texts with its tokenizer, with two classes."""
    return Upload("folder", pb.ARTIFACT_KIND_MODEL, "good.zip", zip_of(_bert()))


@cache
def _bert() -> tuple[tuple[str, bytes], ...]:
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        num_labels=2,
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        transformers.BertForSequenceClassification(config).save_pretrained(place)
        files = {file.name: file.read_bytes() for file in Path(place).iterdir()}
    return tuple((files_of_words() | files).items())
