"""Operators whose form changed between opsets, or that exporters use in unusual ways, against ONNX Runtime."""

import numpy as np
import pytest

from compressors.errors import ModelError, UnsupportedModelError
from compressors.sources.onnx.operators import OPERATORS
from tests.compressors.sources.onnx.builders import FLOAT, INT64, both, computed, helper, model, node, weights


def ints(*values):
    return np.array(values, np.int64)


MORE = node("Concat", ["x"] * 4, "h", axis=1)
FLAT = node("Flatten", "x", "h")
CONV = {"w": weights(4, 3, 3, 3), "b": weights(4)}
DECONV = {"w": weights(3, 4, 3, 3), "b": weights(4)}
NORM = {"s": weights(3), "b": weights(3), "m": weights(3), "v": np.abs(weights(3))}


def conv(**attributes):
    return [node("Conv", "xwb", **attributes)], CONV


def deconv(**attributes):
    return [node("ConvTranspose", "xwb", **attributes)], DECONV


def pool(op, **attributes):
    return [node(op, "x", **{"kernel_shape": [3, 3], **attributes})], {}


def resize(mode, coordinates, scales=(1, 1, 2, 2), **attributes):
    stored = {"r": np.zeros(0, np.float32), "s": np.array(scales, np.float32)}
    return [node("Resize", "xrs", mode=mode, coordinate_transformation_mode=coordinates, **attributes)], stored


CASES = {
    "conv, asymmetric pads": (17, conv(pads=[0, 0, 1, 1], strides=[2, 2])),
    "conv, same upper": (11, conv(auto_pad="SAME_UPPER", strides=[2, 2])),
    "conv, same lower": (11, conv(auto_pad="SAME_LOWER", strides=[2, 2])),
    "conv, valid": (11, conv(auto_pad="VALID")),
    "deconv, output padding": (11, deconv(strides=[2, 2], output_padding=[1, 1], pads=[1, 1, 1, 1])),
    "deconv, asymmetric": (11, deconv(strides=[2, 2], pads=[0, 0, 1, 1])),
    "deconv, output shape": (11, deconv(strides=[3, 3], output_shape=[17, 16])),
    "deconv, same upper": (11, deconv(strides=[2, 2], auto_pad="SAME_UPPER")),
    "deconv, same lower": (11, deconv(strides=[2, 2], auto_pad="SAME_LOWER")),
    "max pool, ceil": (12, pool("MaxPool", strides=[2, 2], ceil_mode=1)),
    "max pool, asymmetric": (12, pool("MaxPool", strides=[2, 2], pads=[0, 0, 1, 1])),
    "max pool, wide pads": (12, pool("MaxPool", strides=[2, 2], pads=[2, 2, 2, 2])),
    "max pool, same": (9, pool("MaxPool", strides=[2, 2], auto_pad="SAME_UPPER")),
    "average pool, ceil": (19, pool("AveragePool", strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1])),
    "average pool, count": (19, pool("AveragePool", strides=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1)),
    "average pool, same": (9, pool("AveragePool", strides=[2, 2], auto_pad="SAME_UPPER")),
    "average pool, dilated": (19, pool("AveragePool", dilations=[2, 2], pads=[1, 1, 1, 1])),
    "batch norm 9": (9, ([node("BatchNormalization", "xsbmv", epsilon=1e-3)], NORM)),
    "batch norm 14": (14, ([node("BatchNormalization", "xsbmv")], NORM)),
    "batch norm 15": (15, ([node("BatchNormalization", "xsbmv")], NORM)),
    "instance norm": (17, ([node("InstanceNormalization", "xsb")], NORM)),
    "layer norm over two axes": (
        17, ([node("LayerNormalization", "xwb", axis=-2)], {"w": weights(6, 6), "b": weights(6, 6)}),
    ),
    "group norm 21": (21, ([node("GroupNormalization", "xsb", num_groups=3)], NORM)),
    "global lp pool": (9, ([node("GlobalLpPool", "x", p=2)], {})),
    "lrn": (13, ([node("LRN", "x", size=3)], {})),
    "softmax 11, inner axis": (11, ([node("Softmax", "x", axis=1)], {})),
    "softmax 11, last axis": (11, ([node("Softmax", "x", axis=3)], {})),
    "softmax 13": (13, ([node("Softmax", "x", axis=1)], {})),
    "clip 6": (9, ([node("Clip", "x", min=-0.5, max=0.5)], {})),
    "clip 6, open": (9, ([node("Clip", "x", min=0.0)], {})),
    "clip 11": (11, ([node("Clip", ["x", "", "h"])], {"h": np.float32(0.5)})),
    "clip 13, six": (13, ([node("Clip", "xlh")], {"l": np.float32(0), "h": np.float32(6)})),
    "squeeze 11": (11, ([node("ReduceMean", "x", "h", axes=[1]), node("Squeeze", "h", axes=[1])], {})),
    "squeeze 13": (13, ([node("ReduceMean", "x", "h", axes=[1]), node("Squeeze", "ha")], {"a": ints(1)})),
    "unsqueeze 11": (11, ([node("Unsqueeze", "x", axes=[1, -1])], {})),
    "unsqueeze 13": (13, ([node("Unsqueeze", "xa")], {"a": ints(1, -1)})),
    "slice 9": (9, ([node("Slice", "x", axes=[2, 3], starts=[1, -3], ends=[5, 2**31 - 1])], {})),
    "slice 13, steps": (13, ([node("Slice", "xseat")], {"s": ints(-1), "e": ints(-9), "a": ints(3), "t": ints(-2)})),
    "split 11": (11, ([node("Split", "x", ["p", "y"], axis=2, split=[2, 4])], {})),
    "split 13": (13, ([node("Split", "xs", ["p", "y"], axis=2)], {"s": ints(2, 4)})),
    "split 18": (18, ([node("Split", "x", ["p", "y"], axis=1, num_outputs=2)], {})),
    "pad 9": (9, ([node("Pad", "x", pads=[0, 0, 1, 0, 0, 0, 2, 1], value=0.5)], {})),
    "pad 11": (11, ([node("Pad", "xpv", mode="constant")], {"p": ints(0, 0, 1, 0, 0, 0, 2, 1), "v": np.float32(2)})),
    "pad 18, axes": (18, ([node("Pad", ["x", "p", "", "a"], mode="reflect")], {"p": ints(1, 2), "a": ints(3)})),
    "pad 13, edge": (13, ([node("Pad", "xp", mode="edge")], {"p": ints(0, 1, 1, 0, 0, 0, 2, 1)})),
    "pad 13, cut": (13, ([node("Pad", "xp")], {"p": ints(0, 0, -1, 0, 0, 0, 2, -1)})),
    "reduce sum 11": (11, ([node("ReduceSum", "x", axes=[1, -1], keepdims=0)], {})),
    "reduce sum 13": (13, ([node("ReduceSum", "xa", keepdims=0)], {"a": ints(1, -1)})),
    "reduce mean 18": (18, ([node("ReduceMean", "xa")], {"a": ints(2, 3)})),
    "reduce l2 13": (13, ([node("ReduceL2", "x", axes=[1])], {})),
    "upsample 9": (9, ([node("Upsample", "xs", mode="nearest")], {"s": np.array([1, 1, 2, 3], np.float32)})),
    "resize 10": (10, ([node("Resize", "xs", mode="nearest")], {"s": np.array([1, 1, 2, 2], np.float32)})),
    "resize 11, nearest": (11, resize("nearest", "asymmetric", nearest_mode="floor")),
    "resize 11, half pixel": (11, resize("nearest", "half_pixel", (1, 1, 1.5, 2.5))),
    "resize 13, linear": (13, resize("linear", "half_pixel")),
    "resize 13, linear, smaller": (13, resize("linear", "half_pixel", (1, 1, 0.7, 0.6))),
    "resize 13, corners": (13, resize("linear", "align_corners")),
    "resize 13, asymmetric": (13, resize("linear", "asymmetric")),
    "resize 13, cubic": (13, resize("cubic", "half_pixel")),
    "resize 18, cubic of Pillow": (18, resize("cubic", "half_pixel", cubic_coeff_a=-0.5)),
    "depth to space 11": (11, ([MORE, node("DepthToSpace", "h", blocksize=2, mode="CRD")], {})),
    "depth to space 9": (9, ([MORE, node("DepthToSpace", "h", blocksize=2)], {})),
    "space to depth": (9, ([node("SpaceToDepth", "x", blocksize=2)], {})),
    "gemm": (11, ([FLAT, node("Gemm", "hwb", alpha=0.5, beta=2.0)], {"w": weights(108, 4), "b": weights(1, 4)})),
    "gemm, transposed": (11, ([FLAT, node("Gemm", "hwb", transB=1)], {"w": weights(4, 108), "b": weights(4)})),
    "gemm, weights first": (11, ([FLAT, node("Gemm", "wh", transB=1)], {"w": weights(4, 108)})),
    "matmul, rank 4": (13, ([node("MatMul", "xw", "h"), node("Add", "hb")], {"w": weights(6, 5), "b": weights(5)})),
    "einsum": (13, ([node("Einsum", "xx", equation="bchw, bcvw -> bchv")], {})),
    "prelu, scalar": (9, ([node("PRelu", "xw")], {"w": weights(1)})),
    "prelu, channels": (9, ([node("PRelu", "xw")], {"w": weights(3, 1, 1)})),
    "prelu, elements": (9, ([node("PRelu", "xw")], {"w": weights(3, 6, 6)})),
    "hard sigmoid": (9, ([node("HardSigmoid", "x", alpha=0.2, beta=0.4)], {})),
    "hard swish": (14, ([node("HardSwish", "x")], {})),
    "gelu 20, tanh": (20, ([node("Gelu", "x", approximate="tanh")], {})),
    "mish": (18, ([node("Mish", "x")], {})),
    "selu": (9, ([node("Selu", "x")], {})),
    "gather rows": (13, ([node("Gather", "xi", axis=2)], {"i": ints(0, -1, 2)})),
    "gather one": (13, ([node("Gather", "xi", axis=1)], {"i": np.int64(-1)})),
    "gather table": (13, ([node("Gather", "xi", axis=3)], {"i": np.array([[0, 1], [5, -2]])})),
    "scatter nd": (16, ([node("ScatterND", "xiu")], {"i": np.array([[0, 1]]), "u": weights(1, 6, 6)})),
    "cumsum": (14, ([node("CumSum", "xa", reverse=1)], {"a": ints(2).reshape(())})),
    "trilu": (14, ([node("Trilu", "x", upper=0)], {})),
    "top k 11": (11, ([node("TopK", "xk", ["y", "i"], axis=2)], {"k": ints(2)})),
    "top k 9": (9, ([node("TopK", "x", ["y", "i"], k=3)], {})),
    "grid sample": (16, ([node("GridSample", "xg")], {"g": np.tanh(weights(2, 4, 4, 2))})),
    "dropout 7": (9, ([node("Dropout", "x", ratio=0.5)], {})),
    "dropout 13": (13, ([node("Dropout", "xr")], {"r": np.float32(0.5)})),
    "power": (13, ([node("Abs", "x", "h"), node("Pow", "he")], {"e": np.float32(1.5)})),
    "division of a number": (13, ([node("Div", "cx")], {"c": np.float32(2)})),
    "where": (13, ([node("Less", "xc", "m"), node("Where", "mcx")], {"c": np.float32(0)})),
    "tile": (13, ([node("Tile", "xr")], {"r": ints(1, 2, 1, 3)})),
    "flatten 2": (13, ([node("Flatten", "x", axis=2)], {})),
    "flatten 0": (13, ([node("Flatten", "x", axis=0)], {})),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_what_onnx_runtime_does(name, tmp_path):
    opset, (nodes, stored) = CASES[name]
    for wanted, got in both(model(nodes, stored=stored, opset=opset), tmp_path):
        assert wanted.shape == got.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("opset", [9, 11, 13, 17, 18, 21])
def test_shape_arithmetic_becomes_a_plain_reshape(tmp_path, opset):
    axes = {"axes": [0]} if opset < 13 else {}
    one = [] if opset < 13 else ["zero"]
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", ["shape", "zero"], "batch"),
        node("Unsqueeze", ["batch_scalar", *one], "batch_1", **axes),
        node("Concat", ["batch_1", "rest"], "sizes", axis=0),
        node("Reshape", ["x", "sizes"]),
    ]
    nodes.insert(2, node("Squeeze", ["batch", *one], "batch_scalar", **axes))
    stored = {"zero": ints(0), "rest": ints(3, -1)}
    for wanted, got in both(model(nodes, stored=stored, opset=opset), tmp_path):
        np.testing.assert_array_equal(got, wanted)


REFUSALS = {
    "positions of maxima": (
        [node("MaxPool", "x", ["y", "i"], kernel_shape=[2, 2]), node("Cast", "i", "z", to=FLOAT)],
        {},
    ),
    "crop and resize": resize("linear", "tf_crop_and_resize"),
    "antialias": resize("linear", "half_pixel", (1, 1, 0.5, 0.5), antialias=1),
    "an unknown mode": resize("sinc", "half_pixel"),
    "half precision": ([node("Cast", "x", to=10)], {}),
    "a shape that depends on data": ([node("Cast", "x", "s", to=INT64), node("Reshape", "xs")], {}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_computed_exactly_is_refused_by_name(name, tmp_path):
    nodes, stored = REFUSALS[name]
    outputs = ("z",) if name == "positions of maxima" else ("y",)
    with pytest.raises(UnsupportedModelError) as caught:
        computed(model(nodes, stored=stored, opset=18, outputs=outputs), tmp_path)
    assert nodes[0].op_type in str(caught.value) or nodes[-1].op_type in str(caught.value)


def test_every_unknown_operator_is_named_at_once_with_what_to_do(tmp_path):
    nodes = [
        node("QuantizeLinear", "xs", "q"),
        node("FusedConv", "x", "f", domain="com.microsoft"),
        node("Mine", "x", "m", domain="my.domain"),
        node("NonZero", "x", "n"),
        node("Loop", ["", "", "x"], "y", body=helper.make_graph([], "b", [], [])),
    ]
    made = model(nodes, stored={"s": np.float32(1)})
    made.opset_import.extend([helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("my.domain", 1)])
    with pytest.raises(UnsupportedModelError) as caught:
        computed(made, tmp_path)
    for part in ("QuantizeLinear (1 times", "com.microsoft.FusedConv", "my.domain.Mine", "NonZero", "Loop", "opset 17"):
        assert part in str(caught.value)
    for advice in ("before it is quantised", "without optimisations for one runtime", "fixed number of steps"):
        assert advice in str(caught.value)


def test_training_mode_is_refused(tmp_path):
    nodes = [node("BatchNormalization", "xsbmv", ["y", "p", "q"], training_mode=1)]
    with pytest.raises(ModelError, match="training mode"):
        computed(model(nodes, stored=NORM), tmp_path)


def test_the_table_knows_what_vision_models_and_transformers_use():
    assert len(OPERATORS) > 130
