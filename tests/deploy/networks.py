"""Tiny networks, shared by the deploy tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import nn

from deploy.direct import build_direct


@dataclass(frozen=True)
class Spec:
    """What the engine's TensorSpec looks like to deploy."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    low: int = 0
    high: int = 2


class Residual(nn.Module):
    """A stem, one residual block, a downsampling shortcut by slice and pad, and a classifier of three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.inner(x) + x)
        x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


IMAGE = Spec("image", (3, 8, 8))


def make_residual(seed: int = 0) -> Residual:
    torch.manual_seed(seed)
    module = Residual().eval()
    module.norm.running_mean = torch.randn(8) * 0.1
    module.norm.running_var = torch.rand(8) + 0.5
    return module


def write_direct(module: nn.Module, spec: Spec, path: Path) -> Path:
    """Writes a convolution or linear layer without the exporter, which takes a second whatever it exports."""
    model = build_direct(module.eval(), [spec], 1)
    assert model is not None
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, path)
    return path
