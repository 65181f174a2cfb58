from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from deploy.artifact import hash_model
from deploy.precision.pieces import write_in, write_pair_edges
from tests.deploy.networks import Spec, write_direct
from tests.deploy.precision.models import images, operators, run, write


def convolution(path: Path) -> Path:
    torch.manual_seed(0)
    return write_direct(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()), Spec("x", (4, 8, 8)), path)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_piece_runs_in_its_precision(tmp_path: Path, precision: str) -> None:
    path = convolution(tmp_path / "a.onnx")
    write_in([path], precision, "onnxruntime")
    assert {"float16": "Cast", "int8": "QuantizeLinear"}[precision] in operators(path)
    assert run(path, images(1))[0].shape == (1, 4, 8, 8)


def test_float32_changes_nothing(tmp_path: Path) -> None:
    path = convolution(tmp_path / "a.onnx")
    before = hash_model(path)
    write_in([path], "float32", "onnxruntime")
    assert hash_model(path) == before


def test_a_piece_with_nothing_to_quantise_stays_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, (4, 8, 8))
    before = hash_model(path)
    write_in([path], "int8", "onnxruntime")
    assert hash_model(path) == before
    assert not write_pair_edges(path, tmp_path / "edges.onnx", "onnxruntime")
    assert not (tmp_path / "edges.onnx").exists()


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
def test_edges_are_a_pair_for_each_input_and_output(tmp_path: Path, runtime: str) -> None:
    path, edges = convolution(tmp_path / "a.onnx"), tmp_path / "edges.onnx"
    fixed = onnx.load(path)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, path)
    write_in([path], "int8", runtime)
    assert write_pair_edges(path, edges, runtime)
    assert operators(edges) == ["QuantizeLinear", "DequantizeLinear"] * 2
    back = run(edges, images(1), images(1, seed=1))
    assert abs(back[0] - images(1).clip(-1, 1)).max() > 0
    assert [each.shape for each in back] == [(1, 4, 8, 8)] * 2
