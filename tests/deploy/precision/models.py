"""Small ONNX files, written by hand, and how to run them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray


def write(path: Path, nodes: Sequence[onnx.NodeProto], weights: dict[str, Array], shape: tuple[int, ...]) -> Path:
    """Writes a network from `x`, shape (batch, *shape), to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", *shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    if not model.graph.output[0].type.tensor_type.HasField("shape"):
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", *shape)))
    onnx.save(model, path)
    return path


def write_convolutions(path: Path, depth: int = 3, channels: int = 4, seed: int = 0) -> Path:
    """Writes a chain of 3x3 convolutions and ReLUs that keeps the size of its values, without a ReLU at the end."""
    rng = np.random.default_rng(seed)
    weights, nodes, name = {}, [], "x"
    for index in range(depth):
        scale = np.float32(np.sqrt(2 / (9 * channels)))
        weights[f"w{index}"] = scale * rng.standard_normal((channels, channels, 3, 3), dtype=np.float32)
        weights[f"b{index}"] = np.float32(0.1) * rng.standard_normal(channels, dtype=np.float32)
        out = "y" if index == depth - 1 else f"c{index}"
        nodes.append(helper.make_node("Conv", [name, f"w{index}", f"b{index}"], [out], pads=[1, 1, 1, 1]))
        if out != "y":
            nodes.append(helper.make_node("Relu", [out], [f"r{index}"]))
        name = f"r{index}"
    return write(path, nodes, weights, (channels, 8, 8))


def run(path: Path, *inputs: Array) -> list[Array]:
    """Returns a file's outputs, by hand."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([each.name for each in session.get_inputs()], inputs, strict=True)))


def images(count: int, channels: int = 4, seed: int = 0) -> Array:
    """Returns noise, shape (count, channels, 8, 8)."""
    return np.random.default_rng(seed).standard_normal((count, channels, 8, 8), dtype=np.float32)


def operators(path: Path) -> list[str]:
    """Returns the operator types of a file, in order."""
    return [node.op_type for node in onnx.load(path).graph.node]


def stored(path: Path) -> dict[str, int]:
    """Returns the element types of a file's weights."""
    return {weight.name: weight.data_type for weight in onnx.load(path).graph.initializer}
