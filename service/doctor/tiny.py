"""The smallest model that says something: y = x + 1."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def write_tiny(path: Path) -> Path:
    """Writes the model, with a free batch of two values each, and returns the path."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 2)) for name in ("x", "y")]
    one = helper.make_tensor("one", TensorProto.FLOAT, (1,), [1.0])
    graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "tiny", value[:1], value[1:], [one])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
