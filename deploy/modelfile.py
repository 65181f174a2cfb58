"""Opens ONNX files that somebody else may have made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError
from onnx import checker

from deploy.errors import ModelFileError

MAX_BYTES = 2**31
"""Larger files are refused before they are read: protobuf cannot hold them."""

_KEY = "location"


def open_model(path: Path) -> onnx.ModelProto:
    """Returns the model without weights that lie in other files, after checking that it is one and keeps to its folder.

    Raises:
        ModelFileError: If the file is missing, too large, no valid ONNX, or refers to files outside its own folder.
    """
    model = _parse(path)
    for tensor in _tensors(model.graph):
        _check_location(path, tensor)
    try:
        # By path, so that the checker finds weights that lie beside the file.
        checker.check_model(path, full_check=False)
    except (checker.ValidationError, RuntimeError) as exc:
        msg = f"'{path.name}' is not a valid ONNX model: {_first_line(exc)}"
        raise ModelFileError(msg) from exc
    return model


def weight_files(model: onnx.ModelProto) -> tuple[str, ...]:
    """Returns the files that a model keeps weights in, by their names in its own folder, each once."""
    locations = (entry.value for tensor in _tensors(model.graph) for entry in tensor.external_data if entry.key == _KEY)
    return tuple(dict.fromkeys(locations))


def _parse(path: Path) -> onnx.ModelProto:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            msg = f"'{path.name}' has {size} bytes; at most {MAX_BYTES} are read"
            raise ModelFileError(msg)
        model = onnx.load(path, load_external_data=False)
    except OSError as exc:
        msg = f"cannot read the model file '{path}': {exc.strerror}"
        raise ModelFileError(msg) from exc
    except DecodeError as exc:
        msg = f"'{path.name}' is not an ONNX file, or it is damaged"
        raise ModelFileError(msg) from exc
    if not model.graph.node:
        msg = f"'{path.name}' is not an ONNX model, or it holds no operator"
        raise ModelFileError(msg)
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _check_location(path: Path, tensor: onnx.TensorProto) -> None:
    for entry in tensor.external_data:
        if entry.key != _KEY:
            continue
        parts = {*PurePosixPath(entry.value).parts, *PureWindowsPath(entry.value).parts}
        absolute = PurePosixPath(entry.value).is_absolute() or PureWindowsPath(entry.value).is_absolute()
        if absolute or ".." in parts or (path.parent / entry.value).is_symlink():
            msg = f"'{path.name}' asks for weights in '{entry.value}'; only files in its own folder are allowed"
            raise ModelFileError(msg)


def _first_line(exc: Exception) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
