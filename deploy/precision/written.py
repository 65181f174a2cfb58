"""A converted file as an artifact."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import onnx

from deploy.artifact import Artifact, hash_model
from deploy.precision.model import opset_of
from deploy.precision.result import Converted


def describe_converted(before: Artifact, path: Path, converted: Converted) -> Artifact:
    """Returns what is known about a file that was made of another.

    Args:
        before: The float32 file.
        path: The converted one.
        converted: What the conversion did.

    Raises:
        ModelFileError: It cannot be read.
    """
    sha256, size = hash_model(path)
    return replace(
        before,
        path=path,
        sha256=sha256,
        size_bytes=size,
        opset=opset_of(onnx.load(path, load_external_data=False)),
        precision=converted.precision,
        producers={**before.producers, "onnxruntime": version("onnxruntime")},
    )
