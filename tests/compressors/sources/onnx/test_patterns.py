"""What exporters take apart comes back in one piece, computes the same, and look-alikes are left alone."""

import math

import numpy as np
import pytest

from tests.compressors.sources.onnx.builders import difference, functions, imported, kinds, model, node, weights, write

HALF, ONE, ROOT = np.float32(0.5), np.float32(1), np.float32(math.sqrt(2))
SHAPE = ("n", 5, 8)


def scalar(value):
    return np.float32(value)


GELU = {
    "torch": [
        node("Div", ["x", "root"], "a"),
        node("Erf", "a", "b"),
        node("Add", ["b", "one"], "c"),
        node("Mul", ["x", "c"], "d"),
        node("Mul", ["d", "half"]),
    ],
    "halved first": [
        node("Mul", ["x", "inverse"], "a"),
        node("Erf", "a", "b"),
        node("Add", ["one", "b"], "c"),
        node("Mul", ["half", "x"], "d"),
        node("Mul", ["d", "c"]),
    ],
    "halved inside": [
        node("Div", ["x", "root"], "a"),
        node("Erf", "a", "b"),
        node("Add", ["b", "one"], "c"),
        node("Mul", ["half", "c"], "d"),
        node("Mul", ["d", "x"]),
    ],
}
STORED = {"root": ROOT, "one": ONE, "half": HALF, "inverse": scalar(1 / math.sqrt(2))}


@pytest.mark.parametrize("name", GELU)
def test_gelu_with_erf(name, tmp_path):
    proto = model(GELU[name], SHAPE, STORED)
    graph = imported(proto, tmp_path)
    assert kinds(graph) == ["GELU"]
    assert difference(write(proto, tmp_path), graph) < 1e-6


def test_gelu_with_tanh(tmp_path):
    nodes = [
        node("Pow", ["x", "three"], "a"),
        node("Mul", ["a", "cubic"], "b"),
        node("Add", ["x", "b"], "c"),
        node("Mul", ["c", "scale"], "d"),
        node("Tanh", "d", "e"),
        node("Add", ["e", "one"], "f"),
        node("Mul", ["x", "f"], "g"),
        node("Mul", ["g", "half"]),
    ]
    stored = {**STORED, "three": scalar(3), "cubic": scalar(0.044715), "scale": scalar(math.sqrt(2 / math.pi))}
    proto = model(nodes, SHAPE, stored)
    graph = imported(proto, tmp_path)
    assert kinds(graph) == ["GELU"]
    assert difference(write(proto, tmp_path), graph) < 1e-5


def test_what_only_looks_like_gelu_stays_apart(tmp_path):
    proto = model(GELU["torch"], SHAPE, {**STORED, "root": scalar(1.5)})
    graph = imported(proto, tmp_path)
    assert kinds(graph) == []
    assert "erf" in functions(graph)
    assert difference(write(proto, tmp_path), graph) < 1e-6


def test_a_part_that_is_read_elsewhere_stays(tmp_path):
    proto = model(GELU["torch"], SHAPE, STORED, outputs=("y", "c"))
    graph = imported(proto, tmp_path)
    assert kinds(graph) == []
    assert difference(write(proto, tmp_path), graph) < 1e-6


GATES = {
    "SiLU": ([node("Sigmoid", "x", "g"), node("Mul", "xg")], {}, 17),
    "Hardswish": ([node("HardSigmoid", "x", "g", alpha=1 / 6, beta=0.5), node("Mul", "gx")], {}, 13),
    "Mish": ([node("Softplus", "x", "s"), node("Tanh", "s", "g"), node("Mul", "xg")], {}, 13),
}


@pytest.mark.parametrize("kind", GATES)
def test_gated_activations(kind, tmp_path):
    nodes, stored, opset = GATES[kind]
    proto = model(nodes, SHAPE, stored, opset)
    graph = imported(proto, tmp_path)
    assert kinds(graph) == [kind]
    assert difference(write(proto, tmp_path), graph) < 1e-6


@pytest.mark.parametrize("divided", [False, True])
def test_hardswish_from_a_clip(divided, tmp_path):
    last = node("Div", "ms") if divided else node("Mul", "mt")
    nodes = [node("Add", ["x", "three"], "a"), node("Clip", "alh", "c"), node("Mul", "xc", "m"), last]
    stored = {"three": scalar(3), "l": scalar(0), "h": scalar(6), "s": scalar(6), "t": scalar(1 / 6)}
    proto = model(nodes, SHAPE, stored)
    graph = imported(proto, tmp_path)
    assert kinds(graph) == ["Hardswish"]
    assert difference(write(proto, tmp_path), graph) < 1e-6


def test_hardsigmoid_from_a_clip(tmp_path):
    nodes = [node("Add", ["x", "three"], "a"), node("Clip", "alh", "c"), node("Div", "cs")]
    proto = model(nodes, SHAPE, {"three": scalar(3), "l": scalar(0), "h": scalar(6), "s": scalar(6)})
    graph = imported(proto, tmp_path)
    assert kinds(graph) == ["Hardsigmoid"]
    assert difference(write(proto, tmp_path), graph) < 1e-6


@pytest.mark.parametrize(("opset", "squared"), [(9, "Pow"), (17, "Pow"), (18, "Mul")])
def test_layer_norm(opset, squared, tmp_path):
    axes = {"axes": [-1]} if opset < 18 else {}
    extra = ["axis"] if opset >= 18 else []
    nodes = [
        node("ReduceMean", ["x", *extra], "m", **axes),
        node("Sub", "xm", "d"),
        node("Pow", ["d", "two"], "q") if squared == "Pow" else node("Mul", "dd", "q"),
        node("ReduceMean", ["q", *extra], "v", **axes),
        node("Add", ["v", "eps"], "a"),
        node("Sqrt", "a", "r"),
        node("Div", "dr", "n"),
        node("Mul", ["n", "norm.weight"], "s"),
        node("Add", ["s", "norm.bias"]),
    ]
    stored = {"two": scalar(2), "eps": scalar(1e-6), "norm.weight": weights(8), "norm.bias": weights(8, seed=1)}
    stored |= {"axis": np.array([-1])} if extra else {}
    proto = model(nodes, SHAPE, stored, opset)
    graph = imported(proto, tmp_path)
    assert kinds(graph) == ["LayerNorm"]
    assert graph.module.get_submodule("norm").eps == pytest.approx(1e-6)
    assert difference(write(proto, tmp_path), graph) < 1e-5


def test_a_product_with_weights_and_a_sum_are_a_linear_layer(tmp_path):
    nodes = [node("MatMul", ["x", "onnx::MatMul_7"], "h"), node("Add", ["fc.bias", "h"])]
    proto = model(nodes, SHAPE, {"onnx::MatMul_7": weights(8, 4), "fc.bias": weights(4)})
    graph = imported(proto, tmp_path)
    assert kinds(graph) == ["Linear"]
    assert tuple(graph.module.get_submodule("fc").weight.shape) == (4, 8)
    assert difference(write(proto, tmp_path), graph) < 1e-6


def test_a_sum_that_reaches_further_is_no_bias(tmp_path):
    nodes = [node("MatMul", ["x", "w"], "h"), node("Add", ["h", "b"])]
    proto = model(nodes, SHAPE, {"w": weights(8, 4), "b": weights(5, 4)})
    graph = imported(proto, tmp_path)
    assert (kinds(graph), functions(graph)) == (["Linear"], ["add"])
    assert difference(write(proto, tmp_path), graph) < 1e-6


def test_one_weight_of_two_products_stays_one(tmp_path):
    nodes = [node("MatMul", "xw", "h"), node("Relu", "h", "r"), node("MatMul", "rw")]
    graph = imported(model(nodes, SHAPE, {"w": weights(8, 8)}), tmp_path)
    assert kinds(graph) == ["Linear", "ReLU", "Linear"]
    assert len(list(graph.module.parameters())) == 1


def test_padding_before_and_bias_after_a_convolution_go_into_it(tmp_path):
    nodes = [node("Pad", "xp", "a"), node("Conv", "aw", "c", strides=[2, 2]), node("Add", "cb")]
    stored = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": weights(4, 3, 3, 3), "b": weights(1, 4, 1, 1)}
    proto = model(nodes, stored=stored)
    graph = imported(proto, tmp_path)
    assert (kinds(graph), functions(graph)) == (["Conv2d"], [])
    assert difference(write(proto, tmp_path), graph) < 1e-6


def test_padding_with_a_value_stays_apart(tmp_path):
    nodes = [node("Pad", "xpv", "a"), node("Conv", "aw")]
    stored = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "v": scalar(1), "w": weights(4, 3, 3, 3)}
    proto = model(nodes, stored=stored)
    graph = imported(proto, tmp_path)
    assert (kinds(graph), functions(graph)) == (["Conv2d"], ["pad"])
    assert difference(write(proto, tmp_path), graph) < 1e-6


@pytest.mark.parametrize(("low", "high", "kind"), [(0, 6, "ReLU6"), (0, None, "ReLU"), (-1, 1, "Hardtanh")])
def test_clips_that_are_activations(low, high, kind, tmp_path):
    stored = {"l": scalar(low)} | ({} if high is None else {"h": scalar(high)})
    graph = imported(model([node("Clip", ["x", *stored])], stored=stored), tmp_path)
    assert kinds(graph) == [kind]
