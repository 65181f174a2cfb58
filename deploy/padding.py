"""Keeps explicit padding in front of a max pool apart from the pool's own.

A max pool ignores its own padding, as if it were minus infinity, while a `Pad` of zeros in front of it takes part in
the maximum. ONNX Runtime's pad fusion and onnxsim's both move those zeros into the pool, which changes every window at
the border whose values are all negative (onnxsim issue 290). Neither does so where the `Pad` names its axes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

_FIRST_OPSET_WITH_AXES = 18
_AXES_INPUT = 3


def keep_padding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with axes named at every `Pad` that a max pool reads; the function is the same.

    Opsets before 18 cannot name axes; their models are returned as they are.
    """
    opset = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    pooled = {node.input[0] for node in model.graph.node if node.op_type == "MaxPool"}
    sizes = {weight.name: weight.dims for weight in model.graph.initializer}
    if opset < _FIRST_OPSET_WITH_AXES or not pooled:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.op_type == "Pad" and node.output[0] in pooled and len(node.input) <= _AXES_INPUT:
            _name_axes(copy.graph, node, list(sizes.get(node.input[1], ())))
    return copy


def _name_axes(graph: onnx.GraphProto, node: onnx.NodeProto, size: list[int]) -> None:
    """Adds the axes 0 to rank - 1 as the fourth input, where the paddings are a known list of two for each."""
    if not size:
        return
    rank = size[0] // 2
    name = f"{node.output[0]}_axes"
    graph.initializer.append(numpy_helper.from_array(np.arange(rank, dtype=np.int64), name))
    node.input.extend([""] * (_AXES_INPUT - len(node.input)))
    node.input.append(name)
