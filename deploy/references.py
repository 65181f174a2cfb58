"""Small models that are timed beside others, to know what belongs to the machine and not to the model."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = 20
_IR_VERSION = 10
_CHANNELS = 32
_SIZE = 16


def write_anchor(path: Path) -> Path:
    """Writes a convolution that is always the same, as a measure of how fast the machine is just now."""
    weight = np.random.default_rng(0).standard_normal((_CHANNELS, _CHANNELS, 3, 3), dtype=np.float32)
    shape = ("batch", _CHANNELS, _SIZE, _SIZE)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
        "anchor",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "weight")],
    )
    return _write(graph, path)


def write_dispatch(path: Path, length: int, batch: int) -> Path:
    """Writes a chain of `length` operators on one number per sample, which cost nothing but being started."""
    names = ["x", *(f"t{index}" for index in range(1, length)), "y"]
    graph = helper.make_graph(
        [helper.make_node("Sigmoid", [before], [after]) for before, after in pairwise(names)],
        "dispatch",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 1))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, 1))],
    )
    return _write(graph, path)


def _write(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path
