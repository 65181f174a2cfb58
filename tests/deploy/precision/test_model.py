from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploy.errors import ModelFileError, PrecisionError
from deploy.precision.half import convert_half
from deploy.precision.model import element_types, opset_of, read_float_model, stored_precision, write_model
from deploy.precision.quantise import nominal_ranges, quantise
from tests.deploy.precision.models import run, write, write_convolutions


def test_constants_become_weights(tmp_path: Path) -> None:
    value = helper.make_tensor("", TensorProto.FLOAT, [2], [1.0, 2.0])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=value),
        helper.make_node("Constant", [], ["d"], value_float=3.0),
        helper.make_node("Add", ["x", "c"], ["a"]),
        helper.make_node("Mul", ["a", "d"], ["y"]),
    ]
    source = write(tmp_path / "a.onnx", nodes, {}, (2,))
    model = read_float_model(source)
    assert [node.op_type for node in model.graph.node] == ["Add", "Mul"]
    onnx.save(model, tmp_path / "b.onnx")
    x = np.float32([[1.0, 1.0]])
    assert run(tmp_path / "b.onnx", x)[0].tolist() == run(source, x)[0].tolist() == [[6.0, 9.0]]


def test_the_type_of_every_value_is_known(tmp_path: Path) -> None:
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Relu", ["x"], ["y"])]
    types = element_types(read_float_model(write(tmp_path / "a.onnx", nodes, {}, (2,))))
    assert types == {"x": TensorProto.FLOAT, "s": TensorProto.INT64, "y": TensorProto.FLOAT}


def test_what_a_file_is_stored_as(tmp_path: Path) -> None:
    source, to = write_convolutions(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    assert stored_precision(onnx.load(source)) == "float32"
    for precision in ("float16", "bfloat16"):
        convert_half(source, to, precision)
        assert stored_precision(onnx.load(to)) == precision
    quantise(source, to, nominal_ranges(onnx.load(source)), "unsigned")
    assert stored_precision(onnx.load(to)) == "int8"
    assert opset_of(onnx.load(source)) == 20


def test_an_invalid_model_is_not_written(tmp_path: Path) -> None:
    model = read_float_model(write_convolutions(tmp_path / "a.onnx"))
    model.graph.node[0].input[0] = "nothing"
    with pytest.raises(PrecisionError, match="invalid file"):
        write_model(model, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


def test_a_missing_file_is_the_caller_s_fault(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        read_float_model(tmp_path / "none.onnx")
