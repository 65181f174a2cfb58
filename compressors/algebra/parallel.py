"""Parallel maps: sums and concatenations.

1. Sum. Maps of equal stride that read the same input are summed after every kernel is placed on the union of their
   offsets [-p, -p + d * (k - 1)]; biases add. The identity is a 1x1 whose groups are the channels, so a residual
   connection adds 1 at the tap of offset 0; a projection is a 1x1 at that tap. The groups become the gcd. (The
   re-parametrisation of RepVGG, 2021; skips of merged blocks in LayerMerge, 2024.)
2. Concatenated outputs of the same input: the placed kernels, stacked as output channels.
3. The dual: a map of concatenated inputs is the sum of maps of the parts.
4. Side by side: (x1, x2) -> (f1 x1, f2 x2) is block-diagonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import accumulate

import torch

from compressors.algebra.affine import Affine, identity, regroup
from compressors.algebra.compose import split_groups


def add(left: Affine, right: Affine, size: tuple[int, ...] | None = None) -> Affine:
    """Returns the sum of two maps of the same input (case 1).

    Args:
        left: One map.
        right: The other.
        size: Sizes of the input. Where given, maps whose outputs have equal sizes at this size can be added though they
            would not at another, and the sum is meant for this size.

    Raises:
        ValueError: Strides, channels, kinds of padding or output sizes differ.
    """
    if (left.inputs, left.outputs) != (right.inputs, right.outputs):
        raise ValueError("only maps of the same channels and stride can be added")
    groups = math.gcd(left.groups, right.groups)
    one, two = _align([regroup(left, groups), regroup(right, groups)], size)
    return replace(one, weight=one.weight + two.weight, bias=left.bias + right.bias)


def add_all(maps: Sequence[Affine], size: tuple[int, ...] | None = None) -> Affine:
    """Returns the sum of maps of the same input; see `add`.

    Raises:
        ValueError: There is no map, or two do not fit; see `add`.
    """
    if not maps:
        raise ValueError("a sum needs at least one map")
    return reduce(lambda left, right: add(left, right, size), maps)


def residual(affine: Affine, size: tuple[int, ...] | None = None) -> Affine:
    """Returns x + f(x) (case 1).

    Raises:
        ValueError: The map changes channels or sizes.
    """
    return add(affine, identity(affine.inputs, affine.axes), size)


def stack_outputs(maps: Sequence[Affine], size: tuple[int, ...] | None = None) -> Affine:
    """Returns the concatenation of the outputs of maps of the same input (case 2), without groups.

    Raises:
        ValueError: There is no map, or strides, inputs, kinds of padding or output sizes differ.
    """
    if not maps or len({one.inputs for one in maps}) > 1:
        raise ValueError("only maps of the same input channels and stride can be stacked")
    placed = _align([regroup(one, 1) for one in maps], size)
    weight, bias = torch.cat([one.weight for one in placed]), torch.cat([one.bias for one in placed])
    return replace(placed[0], weight=weight, bias=bias)


def join_inputs(maps: Sequence[Affine], size: tuple[int, ...] | None = None) -> Affine:
    """Returns the map of concatenated inputs that is the sum of one map per part (case 3), without groups.

    Raises:
        ValueError: There is no map, or strides, outputs, kinds of padding or output sizes differ.
    """
    if not maps or len({one.outputs for one in maps}) > 1:
        raise ValueError("only maps of the same output channels and stride can be joined")
    placed = _align([regroup(one, 1) for one in maps], size)
    weight = torch.cat([one.weight for one in placed], dim=1)
    return replace(placed[0], weight=weight, bias=torch.stack([one.bias for one in placed]).sum(0))


def split_inputs(affine: Affine, channels: Sequence[int]) -> tuple[Affine, ...]:
    """Returns one map per part of a concatenated input, whose sum is the map (case 3); the first has the bias.

    Raises:
        ValueError: The parts' channels do not add up to the map's inputs.
    """
    if sum(channels) != affine.inputs:
        raise ValueError(f"parts of {list(channels)} channels are not {affine.inputs} inputs")
    ends = list(accumulate(channels))
    parts = [select_inputs(affine, range(end - n, end)) for n, end in zip(channels, ends, strict=True)]
    return parts[0], *(one.without_bias() for one in parts[1:])


def side_by_side(maps: Sequence[Affine], size: tuple[int, ...] | None = None) -> Affine:
    """Returns the map of concatenated inputs to concatenated outputs (case 4), with as many groups as it can have.

    Raises:
        ValueError: There is no map, or strides, kinds of padding or output sizes differ.
    """
    if not maps:
        raise ValueError("at least one map is needed")
    placed = _align([regroup(one, 1) for one in maps], size)
    inputs, kernel = sum(one.inputs for one in placed), placed[0].kernel
    blocks, column = [], 0
    for one in placed:
        block = one.weight.new_zeros(one.outputs, inputs, *kernel)
        block[:, column : column + one.inputs] = one.weight
        blocks.append(block)
        column += one.inputs
    whole = replace(placed[0], weight=torch.cat(blocks), bias=torch.cat([one.bias for one in placed]))
    return split_groups(whole)


def select_outputs(affine: Affine, channels: Sequence[int]) -> Affine:
    """Returns the map to some of the output channels, in the given order, with as many groups as it can have."""
    places = torch.tensor(list(channels), device=affine.weight.device)
    return split_groups(replace(affine, weight=affine.dense()[places], bias=affine.bias[places], groups=1))


def select_inputs(affine: Affine, channels: Sequence[int]) -> Affine:
    """Returns the map of some of the input channels, the others being zero, with as many groups as it can have."""
    places = torch.tensor(list(channels), device=affine.weight.device)
    return split_groups(replace(affine, weight=affine.dense()[:, places], groups=1))


def trim_after(affine: Affine, size: tuple[int, ...]) -> Affine:
    """Returns the same function at one input size, with the padding after each axis reaching just as far as is read.

    Where the last stride leaves positions unread, they are cropped.
    """
    parts = zip(affine.output_size(size), affine.stride, affine.extent, affine.before, size, strict=True)
    return replace(affine, after=tuple(s * (n - 1) + e - p - (whole - 1) for n, s, e, p, whole in parts))


def _align(maps: Sequence[Affine], size: tuple[int, ...] | None) -> list[Affine]:
    """Returns the maps with their kernels placed on the union of their offsets."""
    if len({one.stride for one in maps}) > 1:
        raise ValueError("only maps of the same channels and stride can be put side by side")
    if len({one.circular for one in maps if one.padded}) > 1:
        raise ValueError("a map that pads with zeros and one that pads circularly have no common padding")
    if size is not None:
        maps = [trim_after(one, size) for one in maps]
    if len({_margins(one) for one in maps}) > 1:
        raise ValueError("the maps give outputs of different sizes")
    axes = range(maps[0].axes)
    before = tuple(max(one.before[axis] for one in maps) for axis in axes)
    after = tuple(max(one.after[axis] for one in maps) for axis in axes)
    spacing = tuple(_spacing(maps, axis) for axis in axes)
    circular = any(one.circular and one.padded for one in maps)
    return [replace(_place(one, before, after, spacing), circular=circular) for one in maps]


def _margins(affine: Affine) -> tuple[int, ...]:
    """Returns what decides the output size along each axis."""
    return tuple(p + q - e for p, q, e in zip(affine.before, affine.after, affine.extent, strict=True))


def _spacing(maps: Sequence[Affine], axis: int) -> int:
    """Returns the widest tap distance on which all kernels lie along one axis."""
    spread = [one.dilation[axis] for one in maps if one.kernel[axis] > 1]
    shifts = [one.before[axis] - maps[0].before[axis] for one in maps]
    return math.gcd(*spread, *shifts) or 1


def _place(affine: Affine, before: tuple[int, ...], after: tuple[int, ...], spacing: tuple[int, ...]) -> Affine:
    """Returns the same function with a larger kernel: zeros at the new offsets, more padding to reach them."""
    starts = [b - p for b, p in zip(before, affine.before, strict=True)]
    ends = [a - q for a, q in zip(after, affine.after, strict=True)]
    parts = list(zip(starts, affine.extent, ends, spacing, strict=True))
    weight = affine.weight.new_zeros(*affine.weight.shape[:2], *((b + e + a) // s + 1 for b, e, a, s in parts))
    steps = (max(d // s, 1) for d, s in zip(affine.dilation, spacing, strict=True))
    taps = [slice(b // s, (b + e) // s + 1, step) for (b, e, _, s), step in zip(parts, steps, strict=True)]
    weight[(slice(None), slice(None), *taps)] = affine.weight
    return replace(affine, weight=weight, before=before, after=after, dilation=spacing)
