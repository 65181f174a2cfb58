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
