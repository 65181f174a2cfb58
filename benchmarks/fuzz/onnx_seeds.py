"""Good ONNX files to start from: small, and together with most of what the format offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_FILE = "net.bin"
"""External data of the seed that has some."""


def seeds() -> list[onnx.ModelProto]:
    """Returns the models, the same ones every time."""
    return [
        *(_convolutional(17), _convolutional(11), _dense(13), _reshaped(18), _branched(16), _functional(18)),
        *(_external(17), _attending(17), _several_inputs(20), _resized(13), _sequence(14), _exported_scopes(18)),
    ]


def side_bytes() -> bytes:
    """Returns the content of the external data file."""
    return b"\0" * 16 + _weights(4, 3, 3, 3).tobytes()


def _weights(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _model(
    nodes: Sequence[onnx.NodeProto],
    stored: dict[str, Any],
    opset: int,
    shape: Sequence[int | str] = ("n", 3, 6, 6),
    **more: Any,
) -> onnx.ModelProto:
    inputs = more.pop("inputs", None) or [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    graph = helper.make_graph(list(nodes), "g", inputs, outputs, tensors)
    made: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)
    made.ir_version = min(made.ir_version, 10)
    return made


def _op(name: str, inputs: Sequence[str], output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(name, list(inputs), [output], **attributes)


def _convolutional(opset: int) -> onnx.ModelProto:
    nodes = [
        _op("Conv", "xwb", "c", pads=[1, 1, 1, 1], strides=[1, 1], dilations=[1, 1], kernel_shape=[3, 3], group=1),
        _op("BatchNormalization", ["c", "s", "o", "m", "v"], "n", epsilon=1e-5),
        _op("Relu", "n", "r"),
        _op("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        _op("GlobalAveragePool", "p", "a"),
        _op("Flatten", "a", "f"),
        _op("Gemm", ["f", "g", "h"], "z", transB=1),
        _op("Clip", ["z", "lo", "hi"]),
    ]
    ones = np.ones(4, np.float32)
    stored = {"w": _weights(4, 3, 3, 3), "b": ones, "s": ones, "o": ones, "m": ones, "v": ones}
    stored |= {"g": _weights(2, 4), "h": _weights(2), "lo": np.float32(-5), "hi": np.float32(5)}
    return _model(nodes, stored, opset)


def _dense(opset: int) -> onnx.ModelProto:
    nodes = [_op("MatMul", "xw", "m"), _op("Add", "mb", "a"), _op("Erf", "a", "e"), _op("Mul", "ea", "u")]
    nodes += [_op("ReduceMean", "u", "r", axes=[1], keepdims=1), _op("Sub", "ur", "d"), _op("Softmax", "d", axis=-1)]
    return _model(nodes, {"w": _weights(5, 4), "b": _weights(4)}, opset, ("n", 5))


def _reshaped(opset: int) -> onnx.ModelProto:
    nodes = [
        _op("Shape", "x", "s"),
        _op("Gather", ["s", "zero"], "n"),
        _op("Unsqueeze", ["n", "zero1"], "n1"),
        _op("Concat", ["n1", "rest"], "shape", axis=0),
        _op("Reshape", ["x", "shape"], "r"),
        _op("Transpose", "r", "t", perm=[0, 2, 1]),
        _op("Slice", ["t", "zero1", "four", "one"], "l"),
        _op("Pad", ["l", "pads", "value"], "p", mode="constant"),
        _op("ReduceSum", ["p", "one"], "q", keepdims=0),
        _op("Tile", ["q", "reps"], "v"),
        _op("Cast", "v", to=1),
    ]
    stored = {"zero": np.int64(0), "zero1": np.array([0]), "one": np.array([1]), "four": np.array([4])}
    stored |= {"rest": np.array([3, 36]), "pads": np.array([0, 1, 0, 0, 1, 0]), "value": np.float32(0)}
    return _model(nodes, stored | {"reps": np.array([1, 2])}, opset)


def _branched(opset: int) -> onnx.ModelProto:
    def body(name: str, operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
        return helper.make_graph([_op(operator, "x", "i"), _op("Conv", "iw", "o")], name, [], [out])

    nodes = [_op("If", ["c"], "h", then_branch=body("t", "Relu"), else_branch=body("e", "Sigmoid"))]
    nodes += [_op("Constant", [], "k", value=numpy_helper.from_array(np.float32(2)))]
    nodes += [_op("Constant", [], "j", value_floats=[1.0]), _op("Mul", "hk", "i"), _op("Add", "ij")]
    return _model(nodes, {"c": np.array(True), "w": _weights(3, 3, 1, 1)}, opset)


def _functional(opset: int) -> onnx.ModelProto:
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("d", 1)]
    leaky = helper.make_node("LeakyRelu", ["a"], ["t"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    inner = helper.make_function("d", "Inner", ["a"], ["b"], [leaky, _op("Exp", "t", "b")], sets, ["slope"])
    calls = [helper.make_node("Inner", ["a"], ["t"], domain="d", slope=0.5), _op("Mul", "tw", "b")]
    outer = helper.make_function("d", "Outer", ["a", "w"], ["b"], calls, sets)
    nodes = [helper.make_node("Outer", ["x", "w"], ["y"], domain="d", name="block/outer")]
    made = _model(nodes, {"w": _weights(3, 1, 1)}, opset, functions=[inner, outer])
    made.opset_import.append(helper.make_opsetid("d", 1))
    return made


def _external(opset: int) -> onnx.ModelProto:
    made = _model([_op("Conv", "xw", "h"), _op("Relu", "h")], {"w": _weights(4, 3, 3, 3)}, opset)
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", SIDE_FILE), ("offset", "16"), ("length", "432")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return made


def _attending(opset: int) -> onnx.ModelProto:
    nodes = [_op("LayerNormalization", "xgb", "n", axis=-1), _op("MatMul", "nq", "Q"), _op("MatMul", "nk", "K")]
    nodes += [_op("Reshape", "Qs", "Q4"), _op("Reshape", "Ks", "K4"), _op("Transpose", ["Q4"], "Qh", perm=[0, 2, 1, 3])]
    nodes += [_op("Transpose", ["K4"], "Kh", perm=[0, 2, 3, 1]), _op("MatMul", ["Qh", "Kh"], "l")]
    nodes += [
        _op("Softmax", "l", "p", axis=-1),
        _op("MatMul", ["p", "Qh"], "o"),
        _op("Einsum", "o", equation="abcd->acbd"),
    ]
    for item in nodes:
        if item.op_type == "Reshape":
            item.input[:] = [item.input[0][:-1] if len(item.input[0]) > 1 else item.input[0], "s"]
    stored = {"g": _weights(4), "b": _weights(4), "q": _weights(4, 4), "k": _weights(4, 4), "s": np.array([0, 0, 2, 2])}
    return _model(nodes, stored, opset, ("n", 5, 4))


def _several_inputs(opset: int) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 5]),
        helper.make_tensor_value_info("scale", TensorProto.FLOAT, ["n", 5, 4]),
    ]
    nodes = [_op("Gather", ["table", "ids"], "e"), _op("Mul", ["e", "scale"], "m"), _op("Split", "m", "s", axis=2)]
    nodes[2].output.append("t")
    nodes += [_op("Concat", "ts", "c", axis=1), _op("Where", ["k", "c", "z"], "w"), _op("Gelu", "w")]
    nodes[2].attribute.append(helper.make_attribute("num_outputs", 2))
    stored = {"table": _weights(7, 4), "k": np.array([True, False]), "z": np.float32(0)}
    return _model(nodes, stored, opset, inputs=inputs)


def _resized(opset: int) -> onnx.ModelProto:
    nodes = [_op("ConvTranspose", "xw", "t", strides=[2, 2], pads=[0, 0, 0, 0], output_padding=[0, 0], group=1)]
    nodes += [_op("Resize", ["t", "", "s"], "r", mode="nearest", coordinate_transformation_mode="asymmetric")]
    nodes += [_op("AveragePool", "r", "a", kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1)]
    nodes += [_op("InstanceNormalization", "agb", "i"), _op("PRelu", "ip", "q"), _op("DepthToSpace", "q", blocksize=2)]
    stored = {"w": _weights(3, 4, 2, 2), "s": np.array([1, 1, 2, 2], np.float32), "p": _weights(4, 1, 1)}
    return _model(nodes, stored | {"g": _weights(4), "b": _weights(4)}, opset, (2, 3, 4, 4))


def _sequence(opset: int) -> onnx.ModelProto:
    nodes = [_op("ConstantOfShape", "s", "c", value=numpy_helper.from_array(np.array([2.0], np.float32)))]
    nodes += [_op("Range", ["zero", "four", "one"], "r"), _op("Cast", "r", "f", to=1), _op("Expand", "fs", "e")]
    nodes += [_op("Add", "xe", "a"), _op("Add", "ac", "d"), _op("TopK", "dk", "t", axis=-1), _op("Squeeze", "tl")]
    nodes[-2].output.append("indices")
    stored = {"s": np.array([1, 4]), "zero": np.int64(0), "four": np.int64(4), "one": np.int64(1)}
    return _model(nodes, stored | {"k": np.array([1]), "l": np.array([1])}, opset, ("n", 4))


def _exported_scopes(opset: int) -> onnx.ModelProto:
    made = _convolutional(opset)
    for index, item in enumerate(made.graph.node):
        entry = item.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", f"['', 'layer{index}', 'layer{index}.op', 'op']"
        item.name = f"/layer{index}/layer{index}.0/{item.op_type}"
    return made
