from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploy.runtimes import SessionSettings, find_runtime
from deploy.runtimes.onnxruntime_edges import build_edge_model, find_edges


def blocked_conv() -> onnx.ModelProto:
    """A convolution as ONNX Runtime rewrites it on processors with wide vectors."""
    domain = "com.microsoft.nchwc"
    nodes = [
        helper.make_node("ReorderInput", ["x"], ["a"], domain=domain),
        helper.make_node("Conv", ["a", "w"], ["b"], domain=domain),
        helper.make_node("ReorderOutput", ["b"], ["y"], domain=domain, channels=32),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 16, 8, 8))]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 32, 4, 4))])
    )


def test_both_edges_are_found() -> None:
    assert find_edges(blocked_conv()) == [(16, (2, 16, 8, 8)), (32, (2, 32, 4, 4))]


def test_changes_of_layout_inside_the_model_are_no_edges() -> None:
    model = blocked_conv()
    model.graph.node.insert(0, helper.make_node("Relu", ["x"], ["r"]))
    model.graph.node[1].input[0] = "r"
    assert find_edges(model) == [(32, (2, 32, 4, 4))]


def test_the_edge_model_runs_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edges.onnx"
    onnx.save(build_edge_model(find_edges(blocked_conv()), batch=2), path)
    session = find_runtime("onnxruntime").load(path, SessionSettings())
    feed = [spec.random(2, seed) for seed, spec in enumerate(session.inputs)]
    for before, after in zip(feed, session.run(feed), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("operator", ["Relu", "Sigmoid"])
def test_a_model_without_convolutions_has_no_edges(operator: str, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 16, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 16, 8, 8))],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    assert not find_runtime("onnxruntime").write_edges(path, tmp_path / "edges.onnx", 1)
    assert not (tmp_path / "edges.onnx").exists()


def test_an_edge_of_three_channels_is_timed_as_four(tmp_path: Path) -> None:
    path = tmp_path / "edges.onnx"
    onnx.save(build_edge_model([(3, (2, 3, 8, 8))], batch=2), path)
    session = find_runtime("onnxruntime").load(path, SessionSettings())
    assert session.run([session.inputs[0].random(2, 0)])[0].shape == (2, 4, 8, 8)
