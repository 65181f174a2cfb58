from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from deploy.errors import DataError
from deploy.precision.observe import BINS, count_values, find_ranges
from tests.deploy.precision.models import write


def scaled(folder: Path) -> Path:
    nodes = [helper.make_node("Mul", ["x", "two"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    return write(folder / "a.onnx", nodes, {"two": np.float32(2.0)}, (4,))


def test_ranges_are_those_over_all_batches(tmp_path: Path) -> None:
    batches = [[np.float32([[1, -2, 3, 0]])], [np.float32([[0, 5, 0, 0], [-7, 0, 0, 0]])]]
    found = find_ranges(scaled(tmp_path), batches)
    assert found == {"x": (-7.0, 5.0), "a": (-14.0, 10.0), "y": (0.0, 10.0)}


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    nodes = [helper.make_node("Log", ["x"], ["y"])]
    source = write(tmp_path / "a.onnx", nodes, {}, (4,))
    found = find_ranges(source, [[np.float32([[0.0, 1.0, 1.0, np.e]])]])
    assert found["y"] == pytest.approx((0.0, 1.0))


def test_every_number_is_counted_in_its_part(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    feeds = [[x[:8]], [x[8:]]]
    source = scaled(tmp_path)
    values = count_values(source, feeds, find_ranges(source, feeds))["a"]
    wanted, _ = np.histogram(2 * x, BINS, (values.low, values.high))
    assert values.counts.tolist() == wanted.tolist()
    assert (values.low, values.high) == (float((2 * x).min()), float((2 * x).max()))
    assert len(values.centres) == BINS


def test_a_value_that_is_always_the_same_has_a_range_that_holds_it(tmp_path: Path) -> None:
    feeds = [[np.full((2, 4), 3.0, np.float32)]]
    source = scaled(tmp_path)
    values = count_values(source, feeds, find_ranges(source, feeds))["a"]
    assert values.low < 6.0 < values.high
    assert values.counts.sum() == 8


def test_integers_are_no_values_to_observe(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64), helper.make_node("Relu", ["x"], ["y"])]
    assert set(find_ranges(write(tmp_path / "a.onnx", nodes, {}, (4,)), [[np.ones((1, 4), np.float32)]])) == {"x", "y"}


def test_the_share_that_is_done_is_told(tmp_path: Path) -> None:
    told: list[float] = []
    find_ranges(scaled(tmp_path), [[np.ones((1, 4), np.float32)]] * 4, told.append)
    assert sorted(set(told)) == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("feeds", [[], [[np.zeros((0, 4), np.float32)]]])
def test_no_samples_are_refused(tmp_path: Path, feeds: list) -> None:
    with pytest.raises(DataError, match="no samples"):
        find_ranges(scaled(tmp_path), feeds)
