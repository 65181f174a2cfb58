"""Small real files: a classifier as ONNX, and samples for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_classifier(path: Path, repeat: int = 1) -> Path:
    """A classifier of three raw values: the largest wins. The more it repeats itself, the slower it is."""
    nodes = [helper.make_node("MatMul", [f"h{step}", "w"], [f"h{step + 1}"]) for step in range(repeat)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def write_samples(path: Path, *, labelled: bool = True) -> Path:
    """Nine samples, of which the classifier gets six right."""
    labels = np.arange(9) % 3
    images = np.eye(3, dtype=np.float32)[labels]
    labels[:3] = (labels[:3] + 1) % 3
    np.savez(path, images=images, **({"labels": labels} if labelled else {}))
    return path


def write_text_classifier(path: Path, words: int, length: int = 6) -> Path:
    """A classifier of token ids under a mask: class 1 where token 4 occurs, else class 0."""
    weights = np.tile(np.array([[0.5, 0.0]], np.float32) / length, (words, 1))
    weights[4] = (0, 9)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["found"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["wide"]),
        helper.make_node("Mul", ["found", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["y"], keepdims=0),
    ]
    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", length]) for name in names]
    stored = {"table": weights, "axis": np.array([-1]), "one": np.array([1])}
    graph = helper.make_graph(
        nodes,
        "texts",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
