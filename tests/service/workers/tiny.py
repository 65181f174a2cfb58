"""A network that is as small as a network can be: `y = x + 1` on pairs of numbers."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def write_model(path: Path) -> Path:
    """Writes it, and returns the path."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 2)) for name in ("x", "y")]
    one = helper.make_tensor("one", TensorProto.FLOAT, (1,), [1.0])
    graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "add", value[:1], value[1:], [one])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path
