"""An exported file and what is known about it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import ModelFileError
from deploy.tensors import TensorInfo

DATA_SUFFIX = ".data"
"""Weights that do not fit into the model file lie beside it, under its name with this suffix."""


@dataclass(frozen=True)
class Artifact:
    """A model file as it is shipped.

    Attributes:
        path: The `.onnx` file. Weights beyond 2 GiB lie beside it, see `DATA_SUFFIX`.
        sha256: Of the bytes of the file, and of the data file after it if there is one.
        size_bytes: Of both.
        opset: Version of the standard operator set.
        precision: What the weights are stored as: one of `deploy.precision.PRECISIONS`.
        inputs: What it takes.
        outputs: What it returns.
        producers: Library name to version, of everything that had a hand in the bytes.
        notes: What the reader should know, e.g. that simplification was not kept.
    """

    path: Path
    sha256: str
    size_bytes: int
    opset: int
    precision: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    producers: Mapping[str, str]
    notes: tuple[str, ...]


def copy_model(source: Path, target: Path) -> None:
    """Copies a model file under another name, in the same folder, with the weights that lie beside it.

    The copy still reads the original's weights, which are the same bytes; its own are there so that it has one hash.

    Raises:
        OSError: There is no room.
    """
    shutil.copyfile(source, target)
    beside, copied = (path.with_name(path.name + DATA_SUFFIX) for path in (source, target))
    copied.unlink(missing_ok=True)
    if beside.exists():
        # No hard link: the ONNX checker takes one for an attack.
        shutil.copyfile(beside, copied)


def hash_model(path: Path) -> tuple[str, int]:
    """Returns SHA-256 (hex) and size in bytes of a model file, weights beside it included.

    Raises:
        ModelFileError: If it cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    beside = path.with_name(path.name + DATA_SUFFIX)
    for part in (path, beside) if beside.exists() else (path,):
        try:
            with part.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
                    size += len(piece)
        except OSError as exc:
            msg = f"cannot read the model file '{part}': {exc.strerror}"
            raise ModelFileError(msg) from exc
    return digest.hexdigest(), size
