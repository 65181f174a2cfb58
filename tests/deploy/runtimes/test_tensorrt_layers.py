"""What the inspector says is in the form that TensorRT's documentation and its own tools show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.runtimes.base import LayerTime
from deploy.runtimes.tensorrt_layers import EngineLayer, FileNode, name_times, parser_names, read_layers

CONV = {
    "Name": "/conv1/Conv + /relu/Relu",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "image", "Location": "Device", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Float"}],
    "Outputs": [{"Name": "a", "Location": "Device", "Dimensions": [1, 8, 8, 8], "Format/Datatype": "Float"}],
    "ParameterType": "Convolution",
    "Kernel": [3, 3],
    "TacticName": "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nhwckrsc_nhwc",
    "StreamId": 0,
    "Metadata": "[ONNX Layer: /conv1/Conv]\u001e[ONNX Layer: /relu/Relu]",
}
REFORMAT = {
    "Name": "Reformatting CopyNode for Input Tensor 0 to /conv1/Conv + /relu/Relu",
    "LayerType": "Reformat",
    "Metadata": "",
}
QUANTISED = {
    "Name": "w_QuantizeLinear + head",
    "LayerType": "gemm",
    "Metadata": "[ONNX Layer: w_QuantizeLinear]\u001f[ONNX Layer: head]",
}
NODES = parser_names(
    [
        ("/conv1/Conv", "a", "Conv"),
        ("/relu/Relu", "b", "Relu"),
        ("w_QuantizeLinear", "c", "QuantizeLinear"),
        ("head", "d", "Gemm"),
        ("", "y", "Softmax"),
    ]
)


def told(entries: list[Any], seconds: dict[str, list[float]]) -> tuple[LayerTime, ...]:
    return name_times(read_layers(json.dumps({"Layers": entries})), seconds, NODES)


def test_a_layer_s_nodes_are_in_its_metadata() -> None:
    assert read_layers(json.dumps({"Layers": [CONV, QUANTISED], "Bindings": ["image"]})) == (
        EngineLayer("/conv1/Conv + /relu/Relu", "CaskConvolution", ("/conv1/Conv", "/relu/Relu")),
        EngineLayer("w_QuantizeLinear + head", "gemm", ("w_QuantizeLinear", "head")),
    )


def test_tensors_are_told_differently_by_tensorrt_11_and_not_read() -> None:
    ten = {"Layers": [CONV], "Bindings": ["image", "y"]}
    tensor = {"Name": "image", "IOMode": "Input", "DataType": "Float", "Dimensions": [1, 3, 8, 8]}
    eleven = {"Layers": [{**CONV, "Inputs": [tensor]}], "I/O Tensors": [tensor]}
    assert read_layers(json.dumps(eleven)) == read_layers(json.dumps(ten))


@pytest.mark.parametrize("entry", [CONV["Name"], {"Name": CONV["Name"], "LayerType": "", "Metadata": ""}])
def test_without_metadata_a_fused_layer_s_name_has_its_nodes(entry: Any) -> None:
    (found,) = told([entry], {str(CONV["Name"]): [1.0]})
    assert found.name == "/conv1/Conv"


def test_the_parser_s_name_of_a_node_without_one_is_its_output_s() -> None:
    assert parser_names([("", "y", "Softmax"), ("n", "z", "Relu")]) == {
        "node_of_y": FileNode("y", "Softmax"),
        "n": FileNode("n", "Relu"),
    }


def test_a_fused_layer_s_time_is_told_at_the_node_that_does_the_work() -> None:
    found = told([CONV, QUANTISED], {str(CONV["Name"]): [3.0], str(QUANTISED["Name"]): [1.0]})
    assert [(time.name, time.op, time.seconds, time.share) for time in found] == [
        ("/conv1/Conv", "CaskConvolution", 3.0, 0.75),
        ("head", "gemm", 1.0, 0.25),
    ]


def test_what_tensorrt_added_keeps_its_name() -> None:
    (found,) = told([CONV, REFORMAT], {str(REFORMAT["Name"]): [1.0]})
    assert (found.name, found.op) == (REFORMAT["Name"], "Reformat")


def test_a_node_without_a_name_is_told_by_its_output() -> None:
    entry = {"Name": "node_of_y", "LayerType": "SoftMaxV2", "Metadata": "[ONNX Layer: node_of_y]"}
    assert told([entry], {"node_of_y": [1.0]})[0].name == "y"


def test_layers_of_one_node_and_type_are_one() -> None:
    parts = [{**CONV, "Name": f"/conv1/Conv part {part}"} for part in (1, 2)]
    (found,) = told(parts, {"/conv1/Conv part 1": [1.0, 1.0], "/conv1/Conv part 2": [2.0, 2.0]})
    assert (found.name, found.seconds) == ("/conv1/Conv", 3.0)


def test_a_layer_that_the_inspector_does_not_list_is_told_by_its_name() -> None:
    assert told([], {"__myl_Fc_myl0_1": [1.0]})[0].name == "__myl_Fc_myl0_1"
