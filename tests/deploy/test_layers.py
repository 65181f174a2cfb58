from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from deploy.artifact import Artifact
from deploy.errors import ModelFileError
from deploy.export import export_onnx
from deploy.layers import Layer, compare_layers, summarise_network
from tests.deploy.networks import Residual, Spec


def test_layers_of_a_residual_network(artifact: Artifact, residual: Residual) -> None:
    summary = summarise_network(artifact.path)
    affine = [layer for layer in summary.layers if layer.macs]
    assert [(layer.name, layer.operator, layer.output_shape) for layer in affine] == [
        ("stem", "Conv", (1, 8, 8, 8)),
        ("inner", "Conv", (1, 8, 8, 8)),
        ("head", "Gemm", (1, 3)),
    ]
    assert [layer.macs for layer in affine] == [8 * 64 * 27, 8 * 64 * 72, 16 * 3]
    assert summary.macs == sum(layer.macs for layer in affine)
    assert summary.depth == 3
    assert summary.activations == 2
    # The norm is folded: its parameters are gone into the convolution.
    wanted = sum(value.numel() for name, value in residual.named_parameters() if "norm" not in name)
    assert summary.parameters == wanted


def test_depth_is_that_of_the_longest_branch(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.long = nn.Sequential(*(nn.Conv2d(2, 2, 1) for _ in range(3)))
            self.short = nn.Conv2d(2, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.long(x), self.short(x)], 1)

    path = tmp_path / "branches.onnx"
    export_onnx(Branches().eval(), [Spec("x", (2, 4, 4))], ["y"], path)
    assert summarise_network(path).depth == 3


def write(path: Path, nodes: list[onnx.NodeProto], shape: tuple[int, ...], weights: dict[str, tuple[int, ...]]) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", *shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (None,) * (1 + len(shape)))],
        [numpy_helper.from_array(np.zeros(size, np.float32), name) for name, size in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("node", "shape", "weight", "macs"),
    [
        # Multiply-accumulates counted by hand: outputs times the products that each is a sum of.
        (helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2]), (4, 9, 9), (6, 2, 3, 3), 6 * 16 * 18),
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]), (4, 5, 5), (4, 3, 2, 2), 100 * 12),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (7, 5), (5, 3), 7 * 3 * 5),
        (helper.make_node("Gemm", ["x", "w"], ["y"]), (5,), (5, 3), 15),
    ],
    ids=["grouped strided conv", "transposed conv", "matmul", "gemm"],
)
def test_multiply_accumulates(
    node: onnx.NodeProto, shape: tuple[int, ...], weight: tuple[int, ...], macs: int, tmp_path: Path
) -> None:
    summary = summarise_network(write(tmp_path / "m.onnx", [node], shape, {"w": weight}))
    assert (summary.macs, summary.parameters, summary.depth) == (macs, int(np.prod(weight)), 1)


def test_a_shared_weight_counts_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    summary = summarise_network(write(tmp_path / "m.onnx", nodes, (5,), {"w": (5, 5)}))
    assert [layer.parameters for layer in summary.layers] == [25, 0]
    assert summary.depth == 2


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(b"\x00\x01garbage" * 100)
    with pytest.raises(ModelFileError, match="not an ONNX"):
        summarise_network(path)


def layer(name: str, operator: str = "Conv") -> Layer:
    return Layer(name, operator, (1,), 0, 0)


def test_layers_are_laid_side_by_side_by_name() -> None:
    before = [layer("a"), layer("b"), layer("c"), layer("d")]
    after = [layer("a"), layer("new"), layer("d", "Gemm"), layer("d")]
    assert compare_layers(before, after) == (
        (before[0], after[0]),
        (before[1], None),
        (before[2], None),
        (None, after[1]),
        (None, after[2]),
        (before[3], after[3]),
    )
