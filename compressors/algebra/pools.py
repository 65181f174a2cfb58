"""Average pooling as a map."""

from __future__ import annotations

import math

import torch

from compressors.algebra.affine import Affine


def average_pool(channels: int, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> Affine:
    """Returns average pooling that counts its padding, as a depthwise convolution."""
    weight = torch.full((channels, 1, *kernel), 1 / math.prod(kernel), dtype=torch.float64)
    bias = torch.zeros(channels, dtype=torch.float64)
    return Affine(weight, bias, stride, padding, padding, (1,) * len(kernel), channels)
