from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from deploy.artifact import Artifact
from deploy.layers import summarise_network
from deploy.layertimes import lay_times
from deploy.measure.profiling import profile_file
from deploy.measure.settings import TimingSettings
from deploy.runtimes import LayerTime


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Conv, Add, Relu, Neg; the last has no name."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="n_conv"),
        helper.make_node("Add", ["c", "x"], ["s"], name="n_add"),
        helper.make_node("Relu", ["s"], ["r"], name="n_relu"),
        helper.make_node("Neg", ["r"], ["y"]),
    ]
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 4, 4]) for name in "xy"]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, 1, 1], [1.0])
    graph = helper.make_graph(nodes, "chain", edges[:1], edges[1:], [weight])
    path = tmp_path / "chain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def told(name: str, op: str, seconds: float = 1.0) -> LayerTime:
    return LayerTime(name, op, seconds, 1.0)


def test_a_time_stands_at_the_node_of_its_name(chain: Path) -> None:
    assert lay_times(chain, [told("n_add", "Add"), told("n_add", "Add", 2.0)]).seconds == (None, 3.0, None, None)


def test_a_fused_operator_stands_at_the_node_that_does_the_work(chain: Path) -> None:
    """It is called after the output of the last of its nodes."""
    assert lay_times(chain, [told("r", "Conv")]).seconds == (1.0, None, None, None)
    assert lay_times(chain, [told("r", "FusedConv")]).seconds == (1.0, None, None, None)
    assert lay_times(chain, [told("y", "Neg")]).seconds == (None, None, None, 1.0)


def test_an_operator_of_an_unknown_type_stands_where_it_ends(chain: Path) -> None:
    assert lay_times(chain, [told("r", "Marvel")]).seconds == (None, None, 1.0, None)


def test_what_the_runtime_adds_belongs_to_no_layer(chain: Path) -> None:
    laid = lay_times(chain, [told("ReorderInput", "ReorderInput")])
    assert laid.seconds == (None,) * 4
    assert [time.op for time in laid.added] == ["ReorderInput"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_convolution_of_a_real_network_has_a_time(artifact: Artifact, runtime: str) -> None:
    found = profile_file(artifact.path, TimingSettings(runtime=runtime))
    assert found is not None
    laid = lay_times(artifact.path, [LayerTime(**layer) for layer in found["layers"]])
    layers = summarise_network(artifact.path).layers
    times = {layer.operator: time for layer, time in zip(layers, laid.seconds, strict=True)}
    assert times["Conv"] is not None
    assert sum(time or 0 for time in laid.seconds) > sum(time.seconds for time in laid.added)
