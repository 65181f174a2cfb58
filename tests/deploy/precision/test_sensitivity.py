from __future__ import annotations

from pathlib import Path

import pytest

from deploy.errors import DataError
from deploy.precision.observe import find_ranges
from deploy.precision.quantise import Form, quantise
from deploy.precision.sensitivity import operator_errors
from tests.deploy.precision.models import images, write_convolutions


@pytest.mark.parametrize("form", ["unsigned", "symmetric"])
@pytest.mark.parametrize(("value", "blamed"), [("x", "Conv_0"), ("r0", "Conv_1"), ("r1", "Conv_2")])
def test_an_operator_that_takes_a_spoiled_value_is_blamed(tmp_path: Path, value: str, blamed: str, form: Form) -> None:
    source, to = write_convolutions(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    ranges = find_ranges(source, [[images(8)]])
    # Steps that are 40 times as wide as they need to be.
    ranges[value] = (40 * ranges[value][0], 40 * ranges[value][1])
    converted = quantise(source, to, ranges, form)
    errors = operator_errors(source, to, converted.names, [[images(8)]])
    convolutions = {name: error for name, error in errors.items() if name.startswith("Conv")}
    # In the unsigned form a value's pair belongs to the operator that makes it.
    blame = {"Conv_1": "Conv_0", "Conv_2": "Conv_1"}.get(blamed, blamed) if form == "unsigned" else blamed
    assert max(convolutions, key=lambda name: convolutions[name]) == blame
    assert set(errors) == set(converted.names)


def test_an_operator_that_is_folded_away_adds_nothing(tmp_path: Path) -> None:
    source, to = write_convolutions(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    converted = quantise(source, to, find_ranges(source, [[images(8)]]), "unsigned")
    errors = operator_errors(source, to, converted.names, [[images(8)]])
    assert [errors[name] for name in ("Relu_0", "Relu_1")] == [0.0, 0.0]
    assert 0 < errors["Conv_0"] < 1e-2


def test_no_samples_are_refused(tmp_path: Path) -> None:
    source = write_convolutions(tmp_path / "a.onnx")
    with pytest.raises(DataError, match="no samples"):
        operator_errors(source, source, (), [])
