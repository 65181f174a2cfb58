"""Between grids and vectors.

1. Flatten, then a linear, is a convolution whose kernel is the whole grid and that pads nothing.
2. A map on a grid, then flatten, then a linear, is one linear of the flattened input: its row for output q is the
   adjoint of the map, applied to row q of the linear as a grid. The adjoint is a transposed convolution; what it
   gives padding is dropped, or added to the other end where the padding is circular. Exact at the borders too, for one
   input size.
3. A linear on channels is a 1x1 and back; it commutes with every mean over the grid, since both are linear and act on
   different axes.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from compressors.algebra.affine import Affine

_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def flatten_as_kernel(linear: Affine, channels: int, size: tuple[int, ...]) -> Affine:
    """Returns flatten and a linear as a convolution of the whole grid, whose output has axes of size 1 (case 1).

    Raises:
        ValueError: The linear does not read channels * (product of sizes) values.
    """
    _check(linear, channels, size)
    ones, zeros = (1,) * len(size), (0,) * len(size)
    return Affine(linear.weight.reshape(-1, channels, *size), linear.bias, ones, zeros, zeros, ones)


def flatten_through(first: Affine, linear: Affine, size: tuple[int, ...]) -> Affine:
    """Returns one linear of the flattened input for a map, flatten and a linear (case 2).

    Args:
        first: The map on the grid; any stride, padding, dilation and groups.
        linear: Reads its flattened output.
        size: Sizes of the input's axes; the result reads in * (product of sizes) values, channels first.

    Raises:
        ValueError: The linear does not read the flattened output.
    """
    middle = first.output_size(size)
    _check(linear, first.outputs, middle)
    rows = linear.weight.reshape(-1, first.outputs, *middle)
    transpose = _TRANSPOSE[first.axes]
    full = transpose(rows, first.weight, stride=first.stride, groups=first.groups, dilation=first.dilation)
    shift = rows.flatten(2).sum(-1) @ first.bias
    return Affine(_gather(full, first, size).flatten(1), linear.bias + shift)


def _gather(reads: torch.Tensor, first: Affine, size: tuple[int, ...]) -> torch.Tensor:
    """Returns what each position of the input is weighted by, shape (out, in, *size): the adjoint of `surround`.

    Args:
        reads: What each position is weighted by that the map reads, its padding included, shape (out, in, *reached).
        first: The map.
        size: Sizes of the input's axes.
    """
    for axis, (n, before) in enumerate(zip(size, first.before, strict=True), start=2):
        places = torch.arange(reads.shape[axis], device=reads.device) - before
        inside = (places >= 0) & (places < n) | first.circular
        shape = (*reads.shape[:axis], n, *reads.shape[axis + 1 :])
        kept = reads.index_select(axis, inside.nonzero()[:, 0])
        reads = reads.new_zeros(shape).index_add(axis, places[inside] % n, kept)
    return reads


def as_pointwise(linear: Affine, axes: int) -> Affine:
    """Returns a linear on channels as a 1x1 convolution (case 3).

    Raises:
        ValueError: The map is no linear.
    """
    if linear.axes:
        raise ValueError(f"a map on {linear.axes} axes is no linear")
    ones, zeros = (1,) * axes, (0,) * axes
    return Affine(linear.weight.reshape(*linear.weight.shape, *ones), linear.bias, ones, zeros, zeros, ones)


def as_linear(pointwise: Affine) -> Affine:
    """Returns a 1x1 convolution that neither pads nor strides as a linear on channels (case 3).

    Raises:
        ValueError: The map reads neighbours, pads or strides.
    """
    if any(pointwise.extent + pointwise.before + pointwise.after) or any(s != 1 for s in pointwise.stride):
        raise ValueError("only a 1x1 convolution that neither pads nor strides is a linear on channels")
    return Affine(pointwise.tap_sum(), pointwise.bias)


def _check(linear: Affine, channels: int, size: tuple[int, ...]) -> None:
    if linear.axes or linear.inputs != channels * math.prod(size):
        raise ValueError(f"a linear of {linear.inputs} inputs cannot read {channels} channels of {size}")
