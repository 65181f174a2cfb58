"""Good `.pt2` files to start from."""

from __future__ import annotations

import io
import warnings
import zipfile
from typing import Any

import torch
from torch import nn
from torch.export import Dim


class _Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.max_pool2d(torch.relu(self.bn(self.conv(x))), 2)
        return self.head(pooled.mean((2, 3)))


class _Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(7, 4), nn.LayerNorm(4)
        self.register_buffer("mask", torch.ones(5, 1))
        self.register_buffer("shift", torch.arange(4).float(), persistent=False)

    def forward(self, ids: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
        mixed = self.norm(self.table(ids) * self.mask + x) + self.shift
        return {"left": mixed.softmax(-1), "right": torch.cat([mixed, x], dim=1)}


class _Reshaped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.MultiheadAttention(4, 2, batch_first=True)
        self.scale = torch.tensor([2.0, 3.0])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = x.reshape(x.shape[0], -1, 4)
        mixed = self.mix(rows, rows, rows, need_weights=False)[0]
        return mixed.reshape(x.shape[0], 12), torch.where(x[..., :2] > 0, x[..., :2] * self.scale, 0.5)


def seeds() -> list[dict[str, bytes]]:
    """Returns the entries of every archive by name below its top folder."""
    torch.manual_seed(0)
    batch = Dim("batch", min=1, max=1024)
    image, rows = torch.zeros(2, 3, 6, 6), torch.zeros(2, 3, 4)
    ids = torch.zeros(2, 5, dtype=torch.int64)
    return [
        _saved(_Convolutional(), (image,), {"x": {0: batch}}),
        _saved(_Convolutional(), (image,), None),
        _saved(_Several(), (ids, torch.zeros(2, 5, 4)), {"ids": {0: batch}, "x": {0: batch}}),
        _saved(_Reshaped(), (rows,), {"x": {0: batch}}),
        _saved(nn.Sequential(nn.ConvTranspose2d(3, 2, 2), nn.Upsample(scale_factor=2), nn.GELU()), (image,), None),
    ]


def _saved(model: nn.Module, inputs: tuple[Any, ...], shapes: Any) -> dict[str, bytes]:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model.eval(), inputs, dynamic_shapes=shapes), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
