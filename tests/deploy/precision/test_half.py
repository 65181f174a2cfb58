from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.artifact import Artifact
from deploy.errors import PrecisionError
from deploy.precision.half import convert_half
from tests.deploy.precision.models import images, operators, run, stored, write, write_convolutions


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_weights_are_halved_and_inputs_and_outputs_stay(tmp_path: Path, precision: str) -> None:
    source, to = write_convolutions(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    converted = convert_half(source, to, precision)
    model = onnx.load(to)
    element = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[precision]
    assert set(stored(to).values()) == {element}
    edges = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    assert edges == [TensorProto.FLOAT] * 2
    assert operators(to) == ["Cast", "Conv", "Relu", "Conv", "Relu", "Conv", "Cast"]
    assert (converted.precision, converted.kept, converted.operators) == (precision, (), 5)


def test_weights_are_rounded_to_the_nearest(tmp_path: Path) -> None:
    source, to = write_convolutions(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    weights = {each.name: numpy_helper.to_array(each) for each in onnx.load(source).graph.initializer}
    for precision, kind in (("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)):
        convert_half(source, to, precision)
        for weight in onnx.load(to).graph.initializer:
            wanted = weights[weight.name.removesuffix(".half")].astype(kind)
            assert (numpy_helper.to_array(weight).astype(np.float32) == wanted.astype(np.float32)).all()


def test_a_float16_file_computes_what_the_network_with_rounded_numbers_does(tmp_path: Path) -> None:
    weight = np.array([[1.0, 2.0], [0.1, -3.0]], np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    source, to = write(tmp_path / "a.onnx", nodes, {"w": weight}, (2,)), tmp_path / "b.onnx"
    convert_half(source, to, "float16")
    x = np.array([[0.3, 0.7]], np.float32)
    wanted = (x.astype(np.float16).astype(np.float64) @ weight.astype(np.float16).astype(np.float64)).astype(np.float16)
    assert run(to, x)[0] == pytest.approx(wanted.astype(np.float32), rel=2.0**-10)


def test_bfloat16_is_written_in_an_operator_set_that_has_it(tmp_path: Path) -> None:
    source, to = write_convolutions(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    convert_half(source, to, "bfloat16")
    assert onnx.load(to).opset_import[0].version == 22
    convert_half(source, to, "float16")
    assert onnx.load(to).opset_import[0].version == 20


def test_casts_stand_where_an_operator_stays_in_float32(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"]),
        helper.make_node("Exp", ["a"], ["c"]),
        helper.make_node("Mul", ["b", "c"], ["y"]),
    ]
    source, to = write(tmp_path / "a.onnx", nodes, {}, (4,)), tmp_path / "b.onnx"
    converted = convert_half(source, to, "float16")
    # One cast serves both operators that take the value in float32.
    assert operators(to) == ["Cast", "Relu", "Cast", "Softmax", "Exp", "Cast", "Cast", "Mul", "Cast"]
    assert [one.operator for one in converted.kept] == ["Softmax", "Exp"]
    x = np.array([[0.5, 1.0, -1.0, 2.0]], np.float32)
    assert run(to, x)[0] == pytest.approx(run(source, x)[0], rel=5e-3)


def test_an_output_that_a_float32_operator_takes_too_is_cast_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Softmax", ["y"], ["unused"])]
    source, to = write(tmp_path / "a.onnx", nodes, {}, (4,)), tmp_path / "b.onnx"
    convert_half(source, to, "float16")
    assert operators(to) == ["Cast", "Relu", "Cast", "Softmax"]
    assert run(to, np.array([[-1.0, 1.0, 2.0, 3.0]], np.float32))[0].tolist() == [[0.0, 1.0, 2.0, 3.0]]


def test_inputs_that_an_operator_fixes_to_float32_stay(tmp_path: Path) -> None:
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")]
    weights = {"scales": np.array([1, 1, 2, 2], np.float32)}
    source, to = write(tmp_path / "a.onnx", nodes, weights, (1, 2, 2)), tmp_path / "b.onnx"
    assert convert_half(source, to, "float16").kept == ()
    assert stored(to) == {"scales": TensorProto.FLOAT}
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    assert run(to, x)[0].tolist() == run(source, x)[0].tolist()


def test_a_weight_of_operators_in_both_precisions_is_there_in_both(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"]),
        helper.make_node("Pow", ["a", "w"], ["b"]),
        helper.make_node("Mul", ["b", "w"], ["y"]),
    ]
    source, to = write(tmp_path / "a.onnx", nodes, {"w": np.float32([2.0, 2.0])}, (2,)), tmp_path / "b.onnx"
    convert_half(source, to, "float16")
    assert stored(to) == {"w": TensorProto.FLOAT, "w.half": TensorProto.FLOAT16}
    assert run(to, np.float32([[1.0, 3.0]]))[0].tolist() == [[8.0, 72.0]]


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write_convolutions(tmp_path / "a.onnx")
    for name in ("b", "c"):
        convert_half(source, tmp_path / name, "float16")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_an_exported_network_agrees(artifact: Artifact, tmp_path: Path) -> None:
    convert_half(artifact.path, tmp_path / "half.onnx", "float16")
    x = images(5, channels=3)
    wanted, got = run(artifact.path, x)[0], run(tmp_path / "half.onnx", x)[0]
    assert got == pytest.approx(wanted, abs=float(1e-2 * np.abs(wanted).max()))


def test_a_converted_file_is_not_converted_again(tmp_path: Path) -> None:
    source, to = write_convolutions(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    convert_half(source, to, "float16")
    with pytest.raises(PrecisionError, match="not in float32"):
        convert_half(to, tmp_path / "c.onnx", "bfloat16")


def test_branches_are_refused_by_name(tmp_path: Path) -> None:
    then = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    nodes = [helper.make_node("If", ["always"], ["y"], then_branch=then, else_branch=then)]
    source = write(tmp_path / "a.onnx", nodes, {"always": np.array(True)}, (2,))
    with pytest.raises(PrecisionError, match=r"branches or loops \(If\)"):
        convert_half(source, tmp_path / "b.onnx", "float16")


def test_weights_beside_the_file_are_refused(large_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(PrecisionError, match="too large for one file"):
        convert_half(large_copy, tmp_path / "b.onnx", "float16")


def test_an_operator_set_whose_operators_may_mean_something_else_is_refused(tmp_path: Path) -> None:
    source = write_convolutions(tmp_path / "a.onnx")
    model = onnx.load(source)
    model.opset_import[0].version = 13
    onnx.save(model, source)
    with pytest.raises(PrecisionError, match="operator set 13"):
        convert_half(source, tmp_path / "b.onnx", "bfloat16")
