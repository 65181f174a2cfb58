"""Parallel maps: sums and concatenations of maps that read the same input, and sums over concatenated inputs."""

from __future__ import annotations

import math
from dataclasses import replace

from compressors.algebra.affine import Affine
from compressors.algebra.compose import regroup


def add(left: Affine, right: Affine) -> Affine:
    """Returns the sum of two maps of the same input (case 5); a residual connection is `add(map, identity(...))`.

    Raises:
        ValueError: Strides, channels or output sizes differ.
    """
    if (left.stride, left.inputs, left.outputs) != (right.stride, right.inputs, right.outputs):
        raise ValueError("only maps of the same channels and stride can be added")
    if any(_margin(left, axis) != _margin(right, axis) for axis in range(left.axes)):
        raise ValueError("the two maps give outputs of different sizes")
    groups = math.gcd(left.groups, right.groups)
    spacing = tuple(_shared_spacing(left, right, axis) for axis in range(left.axes))
    one, two = (_place(regroup(side, groups), left, right, spacing) for side in (left, right))
    return replace(one, weight=one.weight + two.weight, bias=left.bias + right.bias)


def _margin(affine: Affine, axis: int) -> int:
    """Returns what decides the output size along one axis."""
    return affine.before[axis] + affine.after[axis] - affine.dilation[axis] * (affine.kernel[axis] - 1)


def _shared_spacing(left: Affine, right: Affine, axis: int) -> int:
    """Returns the widest tap distance on which both kernels lie."""
    spread = [side.dilation[axis] for side in (left, right) if side.kernel[axis] > 1]
    return math.gcd(*spread, left.before[axis] - right.before[axis]) or 1


def _place(affine: Affine, left: Affine, right: Affine, spacing: tuple[int, ...]) -> Affine:
    """Returns the map with its kernel embedded in the union of the two kernels' offsets."""
    before = tuple(max(pair) for pair in zip(left.before, right.before, strict=True))
    after = tuple(max(pair) for pair in zip(left.after, right.after, strict=True))
    extent = [d * (k - 1) for d, k in zip(affine.dilation, affine.kernel, strict=True)]
    reach = [
        e + (b - p) + (a - q) for e, b, p, a, q in zip(extent, before, affine.before, after, affine.after, strict=True)
    ]
    weight = affine.weight.new_zeros(
        *affine.weight.shape[:2], *(r // s + 1 for r, s in zip(reach, spacing, strict=True))
    )
    taps = [
        slice((b - p) // s, (b - p + e) // s + 1, max(d // s, 1))
        for b, p, s, e, d in zip(before, affine.before, spacing, extent, affine.dilation, strict=True)
    ]
    weight[(slice(None), slice(None), *taps)] = affine.weight
    return replace(affine, weight=weight, before=before, after=after, dilation=spacing)
