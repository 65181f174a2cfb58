from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy.precision.bound import LAMBDA, count_roundings, error_bound
from deploy.precision.formats import HALF_FORMATS
from deploy.precision.half import convert_half
from tests.deploy.precision.models import images, run, write_convolutions


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_every_rounding_on_the_path_counts_once(tmp_path: Path, depth: int) -> None:
    source, to = write_convolutions(tmp_path / "a.onnx", depth), tmp_path / "b.onnx"
    convert_half(source, to, "float16")
    # The cast at the start; of each convolution its weights and its result; ReLUs round nothing.
    assert count_roundings(onnx.load(to), HALF_FORMATS["float16"]) == 1 + 2 * depth
    assert error_bound(to, "float16") == pytest.approx(LAMBDA * 2**-11 * math.sqrt(1 + 2 * depth))


def test_a_float32_file_has_none(tmp_path: Path) -> None:
    model = onnx.load(write_convolutions(tmp_path / "a.onnx"))
    assert count_roundings(model, HALF_FORMATS["float16"]) == 0


@pytest.mark.parametrize("seed", range(5))
def test_networks_whose_values_are_all_rounded_stay_within_it(tmp_path: Path, seed: int) -> None:
    source, to = write_convolutions(tmp_path / "a.onnx", 8, seed=seed), tmp_path / "b.onnx"
    convert_half(source, to, "float16")
    x = images(8, seed=seed)
    wanted, got = run(source, x)[0], run(to, x)[0]
    assert np.abs(got - wanted).max() <= error_bound(to, "float16") * np.abs(wanted).max()


def test_formats_are_what_numpy_says() -> None:
    half = np.finfo(np.float16)
    chosen = HALF_FORMATS["float16"]
    assert (chosen.largest, chosen.smallest, 2 * chosen.unit) == (half.max, half.smallest_normal, half.eps)
