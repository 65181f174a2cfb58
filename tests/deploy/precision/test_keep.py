from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from deploy.precision.formats import HALF_FORMATS
from deploy.precision.keep import Decision, Ranges, decide
from deploy.precision.model import element_types, read_float_model
from tests.deploy.precision.models import write


def decided(
    path: Path, nodes: list, weights: dict | None = None, precision: str = "float16", ranges: Ranges | None = None
) -> Decision:
    model = read_float_model(write(path / "a.onnx", nodes, weights or {}, (4,)))
    return decide(model, element_types(model), HALF_FORMATS[precision], ranges)


def test_plain_operators_go_to_half_precision(tmp_path: Path) -> None:
    found = decided(tmp_path, [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Sigmoid", ["a"], ["y"])])
    assert (found.half, found.kept) == ({0, 1}, ())


@pytest.mark.parametrize("operator", ["Softmax", "Exp", "ReduceMean"])
def test_sums_and_exponentials_stay(tmp_path: Path, operator: str) -> None:
    found = decided(tmp_path, [helper.make_node(operator, ["x"], ["y"])])
    assert found.half == set()
    assert [(one.operator, one.reason) for one in found.kept] == [(operator, "sums or exponentials lose digits")]


def test_a_constant_that_does_not_fit_keeps_its_operator(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    (kept,) = decided(tmp_path, nodes, {"c": np.float32([-3e38])}).kept
    assert "does not fit" in kept.reason
    assert decided(tmp_path, nodes, {"c": np.float32([-3e38])}, "bfloat16").kept == ()


def test_infinity_fits_every_format(tmp_path: Path) -> None:
    nodes = [helper.make_node("Max", ["x", "c"], ["y"])]
    assert decided(tmp_path, nodes, {"c": np.float32([-np.inf])}).kept == ()


def test_a_constant_that_would_vanish_keeps_its_operator(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    (kept,) = decided(tmp_path, nodes, {"c": np.float32([1e-12])}).kept
    assert kept.reason == "a constant of 1e-12 would vanish"
    # Small numbers beside large ones are lost in rounding anyway.
    assert decided(tmp_path, nodes, {"c": np.float32([1e-12, 1.0, 1.0, 1.0])}).kept == ()


def test_an_operator_whose_values_left_the_range_stays(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])]
    found = decided(tmp_path, nodes, ranges={"x": (-1.0, 1.0), "a": (0.0, 1.0), "y": (-4e4, 0.0)})
    assert [(one.operator, one.reason) for one in found.kept] == [("Neg", "values reach 4e+04 on samples")]
    small = decided(tmp_path, nodes, ranges={"a": (0.0, 1e-6)})
    assert {one.operator for one in small.kept} == {"Relu", "Neg"}


def test_numbers_made_of_integers_stay_and_do_not_count(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["f"], ["m"], keepdims=0),
        helper.make_node("Add", ["x", "m"], ["y"]),
    ]
    found = decided(tmp_path, nodes)
    assert 1 not in found.half
    assert found.kept == ()


def test_an_operator_that_onnx_has_not_in_the_format_stays(tmp_path: Path) -> None:
    model = read_float_model(write(tmp_path / "a.onnx", [helper.make_node("HardSwish", ["x"], ["y"])], {}, (4,)))
    # Before operator set 22 it takes no bfloat16.
    (kept,) = decide(model, element_types(model), HALF_FORMATS["bfloat16"]).kept
    assert kept.reason == "ONNX has it not in bfloat16"
