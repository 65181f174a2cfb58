"""What ONNX Runtime adds at the edges of a model, written as a model of its own so that it can be timed.

ONNX Runtime computes convolutions in blocks of channels (NCHWc). Inside a network the tensors stay in that layout; a
model that holds a single convolution pays for changing its input into it and its output back. That is no cost of the
operator.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

_BLOCKED = "com.microsoft.nchwc"
_OPSETS = (("", 20), (_BLOCKED, 1))
_IR_VERSION = 10
_STEP = 4
"""Channels that `ReorderInput` takes are a multiple of this; it fails on others."""

Edge = tuple[int, tuple[int, ...]]
"""Channels, and shape with the batch dimension, of one tensor that changes layout at the edge of a model."""


def find_edges(optimised: onnx.ModelProto) -> list[Edge]:
    """Returns every input and output that ONNX Runtime changes the layout of, given the model as it optimised it."""
    graph = optimised.graph
    inputs = {value.name: value for value in graph.input}
    outputs = {value.name: value for value in graph.output}
    changed = [
        inputs.get(node.input[0]) if node.op_type == "ReorderInput" else outputs.get(node.output[0])
        for node in graph.node
        if node.op_type in {"ReorderInput", "ReorderOutput"}
    ]
    shapes = [tuple(size.dim_value for size in value.type.tensor_type.shape.dim) for value in changed if value]
    return [(shape[1], shape) for shape in shapes if len(shape) == 4 and all(shape[1:])]


def build_edge_model(edges: list[Edge], batch: int) -> onnx.ModelProto:
    """Returns a model that changes each tensor's layout and changes it back: twice the cost of the edges.

    Channels are rounded up to what the way there can take; the way back, as of an image's three, takes any number.
    """
    nodes, inputs, outputs = [], [], []
    for index, (real, shape) in enumerate(edges):
        channels = -(-real // _STEP) * _STEP
        fixed = (batch, channels, *shape[2:])
        inputs.append(helper.make_tensor_value_info(f"in{index}", TensorProto.FLOAT, fixed))
        outputs.append(helper.make_tensor_value_info(f"out{index}", TensorProto.FLOAT, fixed))
        nodes.append(helper.make_node("ReorderInput", [f"in{index}"], [f"blocked{index}"], domain=_BLOCKED))
        nodes.append(
            helper.make_node("ReorderOutput", [f"blocked{index}"], [f"out{index}"], domain=_BLOCKED, channels=channels)
        )
    graph = helper.make_graph(nodes, "edges", inputs, outputs)
    opsets = [helper.make_opsetid(domain, number) for domain, number in _OPSETS]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def write_edge_model(optimised: Path, to: Path, batch: int) -> bool:
    """Writes the edge model of an optimised model to `to`; returns False and writes nothing where there is no edge."""
    edges = find_edges(onnx.load(optimised))
    if edges:
        to.write_bytes(build_edge_model(edges, batch).SerializeToString(deterministic=True))
    return bool(edges)
