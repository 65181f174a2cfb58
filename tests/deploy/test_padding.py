from __future__ import annotations

from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional as F

from deploy.agree import agree
from deploy.export import ExportSettings, export_onnx
from deploy.padding import keep_padding
from tests.deploy.networks import Spec


class NegativeAtTheBorder(nn.Module):
    """Zeros around values of which most are negative, then a max pool: the zeros win at the border."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, 3, 6, 6) to (n, 4, 4, 4)."""
        return F.max_pool2d(F.pad(self.conv(x) - 5, (0, 1, 0, 1)), 2, 1)


@pytest.mark.parametrize("limit", [2**31, 0], ids=["one file", "weights beside it"])
def test_zeros_in_front_of_a_max_pool_stay_zeros(tmp_path: Path, limit: int) -> None:
    module = NegativeAtTheBorder().eval()
    settings = ExportSettings(external_data_above_bytes=limit)
    artifact = export_onnx(module, [Spec("x", (3, 6, 6))], ["y"], tmp_path / "model.onnx", settings)
    agreement = agree(artifact, module)
    assert agreement.passed, agreement


def test_a_model_of_an_opset_without_axes_is_left_alone() -> None:
    graph = helper.make_graph(
        [helper.make_node("Pad", ["x", "pads"], ["p"]), helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[2])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 1, 4))],
        [helper.make_tensor("pads", TensorProto.INT64, [6], [0, 0, 0, 0, 0, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert keep_padding(model) is model
