from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.errors import PrecisionError
from deploy.precision.observe import find_ranges
from deploy.precision.quantise import Form, form_for, nominal_ranges, quantisable, quantise
from tests.deploy.precision.models import images, operators, run, stored, write, write_convolutions

FORMS: tuple[Form, ...] = ("unsigned", "symmetric")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_convolutions(tmp_path / "a.onnx")


def ranges_of(source: Path) -> dict[str, tuple[float, float]]:
    return find_ranges(source, [[images(8)]])


def constants(path: Path) -> dict[str, np.ndarray]:
    return {weight.name: numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("form", FORMS)
def test_a_quantised_network_is_close_to_the_network(source: Path, tmp_path: Path, form: Form) -> None:
    to = tmp_path / "b.onnx"
    converted = quantise(source, to, ranges_of(source), form)
    wanted, got = run(source, images(8))[0], run(to, images(8))[0]
    assert got.dtype == np.float32
    assert 0 < np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()
    assert (converted.precision, converted.kept) == ("int8", ())


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_symmetric_int8_with_a_scale_per_channel_and_biases_float32(
    source: Path, tmp_path: Path, form: Form
) -> None:
    to = tmp_path / "b.onnx"
    quantise(source, to, ranges_of(source), form)
    found, before = constants(to), constants(source)
    for index in range(3):
        weight = found[f"w{index}_quantized"]
        scale = found[f"w{index}_scale"]
        assert weight.dtype == np.int8
        assert scale.shape == (4,)
        assert not found[f"w{index}_zero_point"].any()
        back = weight.astype(np.float32) * scale[:, None, None, None]
        assert np.abs(back - before[f"w{index}"]).max() <= 0.51 * scale.max()
        assert (found[f"b{index}"] == before[f"b{index}"]).all()


def test_the_symmetric_form_has_int8_around_zero_before_convolutions_only(source: Path, tmp_path: Path) -> None:
    to = tmp_path / "b.onnx"
    quantise(source, to, ranges_of(source), "symmetric")
    activations = {name: value for name, value in constants(to).items() if name.endswith("zero_point")}
    assert all(value.dtype == np.int8 and not value.any() for value in activations.values())
    assert operators(to).count("QuantizeLinear") == 3
    assert operators(to).count("Relu") == 2


def test_the_unsigned_form_folds_relus_into_zero_points(source: Path, tmp_path: Path) -> None:
    to = tmp_path / "b.onnx"
    quantise(source, to, ranges_of(source), "unsigned")
    assert "Relu" not in operators(to)
    assert TensorProto.UINT8 in stored(to).values()


def test_what_is_left_out_stays_in_float32_and_is_named(source: Path, tmp_path: Path) -> None:
    to = tmp_path / "b.onnx"
    converted = quantise(source, to, ranges_of(source), "symmetric", {"Conv_1": "for a reason"})
    assert [(one.node, one.operator, one.reason) for one in converted.kept] == [("Conv_1", "Conv", "for a reason")]
    assert converted.names == ("Conv_0", "Conv_2")
    assert stored(to)["w1"] == TensorProto.FLOAT
    assert "w1_quantized" not in stored(to)


def test_the_bias_of_a_matrix_product_is_not_quantised(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "b"], ["y"])]
    weights = {"w": np.eye(4, dtype=np.float32), "b": np.float32([0.1, 0.2, 0.3, 1000.0])}
    source, to = write(tmp_path / "a.onnx", nodes, weights, (4,)), tmp_path / "b.onnx"
    x = np.float32([[0.5, -0.5, 0.25, 1.0]])
    quantise(source, to, find_ranges(source, [[x]]), "unsigned")
    assert run(to, x)[0][0, :3] == pytest.approx(run(source, x)[0][0, :3], abs=0.02)
    assert quantisable(source, find_ranges(source, [[x]]), "unsigned") == ("MatMul_0",)


def test_the_same_file_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for name in ("b", "c"):
        quantise(source, tmp_path / name, ranges_of(source), "unsigned")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_any_batch_size_is_taken(source: Path, tmp_path: Path) -> None:
    quantise(source, tmp_path / "b.onnx", ranges_of(source), "unsigned")
    assert [len(run(tmp_path / "b.onnx", images(count))[0]) for count in (1, 3)] == [1, 3]


def test_an_operator_whose_value_was_never_finite_stays(source: Path, tmp_path: Path) -> None:
    ranges = ranges_of(source)
    del ranges["c1"]
    converted = quantise(source, tmp_path / "b.onnx", ranges, "symmetric")
    assert converted.names == ("Conv_0", "Conv_2")


def test_a_network_without_products_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, (4,))
    with pytest.raises(PrecisionError, match="nothing to quantise"):
        quantise(source, tmp_path / "b.onnx", {"x": (0.0, 1.0), "y": (0.0, 1.0)}, "unsigned")


def test_processors_take_the_unsigned_form_and_others_the_symmetric_one() -> None:
    assert [form_for(name) for name in ("onnxruntime", "openvino", "tensorrt")] == ["unsigned", "unsigned", "symmetric"]


def test_nominal_ranges_name_every_float_value(source: Path) -> None:
    assert {"x", "y", "c0", "r0", "c1", "r1"} <= nominal_ranges(onnx.load(source)).keys()
