"""Average pooling as a depthwise convolution with equal weights.

1. A pool that counts its padding, or has none, weights every position by 1 / (product of the kernel).
2. One that does not count its padding divides by fewer at the border: no affine map of this kind.
3. Rounding sizes up makes a last window that hangs over and divides by fewer: refused where that window exists.
4. A global pool is a window of the whole input; an adaptive one is a pool where its sizes divide the input's.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from compressors.algebra.affine import Affine, Refused

AveragePool = nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d
AdaptivePool = nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d


def average_pool(channels: int, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]) -> Affine:
    """Returns average pooling that counts its padding, as a depthwise convolution (case 1)."""
    weight = torch.full((channels, 1, *kernel), 1 / math.prod(kernel), dtype=torch.float64)
    bias = torch.zeros(channels, dtype=torch.float64)
    return Affine(weight, bias, stride, padding, padding, (1,) * len(kernel), channels)


def global_average_pool(channels: int, size: tuple[int, ...]) -> Affine:
    """Returns the mean over the whole grid, as one window (case 4); the output's axes have size 1."""
    return average_pool(channels, size, (1,) * len(size), (0,) * len(size))


def of_average_pool(pool: AveragePool, channels: int, size: tuple[int, ...]) -> Affine | Refused:
    """Returns the map that a pool computes on inputs of the given sizes (cases 1 to 3), or why it is none."""
    axes = len(size)
    kernel, padding = _spread(pool.kernel_size, axes), _spread(pool.padding, axes)
    stride = _spread(pool.stride, axes)
    if any(padding) and not pool.count_include_pad:
        return Refused("the pool does not count its padding, so it divides by fewer at the border")
    whole = average_pool(channels, kernel, stride, padding)
    if pool.ceil_mode and any(map(_hangs_over, size, kernel, stride, padding)):
        return Refused("the pool rounds its size up, and its last window hangs over the input")
    divisor = getattr(pool, "divisor_override", None)
    if divisor is None:
        return whole
    return replace(whole, weight=torch.full_like(whole.weight, 1 / divisor))


def of_adaptive_pool(pool: AdaptivePool, channels: int, size: tuple[int, ...]) -> Affine | Refused:
    """Returns the map that an adaptive pool computes on inputs of the given sizes (case 4), or why it is none."""
    wanted = pool.output_size if isinstance(pool.output_size, tuple) else (pool.output_size,) * len(size)
    ends = tuple(n if end is None else end for n, end in zip(size, wanted, strict=True))
    if any(n % end for n, end in zip(size, ends, strict=True)):
        return Refused(f"windows of different sizes are needed to pool {size} to {ends}")
    window = tuple(n // end for n, end in zip(size, ends, strict=True))
    return average_pool(channels, window, window, (0,) * len(size))


def _hangs_over(size: int, kernel: int, stride: int, padding: int) -> bool:
    """Says whether rounding up makes one more window, which must start inside the input or before it."""
    span = size + 2 * padding - kernel
    windows = -(-span // stride) + 1
    return span % stride > 0 and (windows - 1) * stride < size + padding


def _spread(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)
