"""Operations that only move, repeat or drop values, as affine maps with weights 0 and 1.

1. Padding with zeros and cropping: a depthwise 1x1 with padding, which is negative where it crops.
2. Slicing with a step: a depthwise 1x1 with a stride, behind a crop.
3. Channels put in another order, shuffled, selected, or extended by zeros: a 1x1, grouped where the order allows.
4. Nearest upsampling reads position floor(v / f): no stride gives that, so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from compressors.algebra.affine import Affine, Refused, identity
from compressors.algebra.compose import split_groups
from compressors.algebra.flatten import as_pointwise


def padding(channels: int, before: tuple[int, ...], after: tuple[int, ...], *, circular: bool = False) -> Affine:
    """Returns padding of each axis (case 1): zeros, or the other end of the axis; negative crops."""
    return replace(identity(channels, len(before)), before=before, after=after, circular=circular)


def slicing(
    channels: int, start: tuple[int, ...], step: tuple[int, ...], drop: tuple[int, ...] | None = None
) -> Affine:
    """Returns x[..., start : size - drop : step] along each axis (case 2).

    Args:
        channels: Of the input.
        start: First position kept of each axis, >= 0.
        step: Per axis, >= 1.
        drop: Positions dropped at the end of each axis before stepping, >= 0; none by default.
    """
    drop = drop or (0,) * len(start)
    before, after = tuple(-n for n in start), tuple(-n for n in drop)
    return replace(identity(channels, len(start)), stride=step, before=before, after=after)


def selection(inputs: int, channels: Sequence[int], axes: int) -> Affine:
    """Returns the input channels of the given numbers, in that order, with as many groups as it can have (case 3).

    A permutation of blocks that stay in place has groups; None of the channels needs to be used, and each may be
    repeated. A number of -1 gives a channel of zeros.

    Raises:
        ValueError: A number is not below the number of channels.
    """
    if any(not -1 <= number < inputs for number in channels):
        raise ValueError(f"{list(channels)} are not all channels of {inputs}")
    weight = torch.zeros(len(channels), inputs, dtype=torch.float64)
    for row, number in enumerate(channels):
        if number >= 0:
            weight[row, number] = 1
    plain = Affine(weight, weight.new_zeros(len(channels)))
    return split_groups(as_pointwise(plain, axes)) if axes else plain


def channel_padding(channels: int, before: int, after: int, axes: int) -> Affine:
    """Returns the input with channels of zeros before and after its own (case 3), as in a ResNet's padded shortcut."""
    return selection(channels, [*[-1] * before, *range(channels), *[-1] * after], axes)


def channel_shuffle(channels: int, groups: int, axes: int) -> Affine:
    """Returns the shuffle of ShuffleNet (case 3): channels seen as (groups, channels / groups) and transposed.

    Raises:
        ValueError: `groups` does not divide the channels.
    """
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be shuffled in {groups} groups")
    return selection(channels, [int(n) for n in torch.arange(channels).reshape(groups, -1).T.flatten()], axes)


def nearest_upsampling(factor: tuple[int, ...]) -> Refused:
    """Returns why upsampling by repetition is no map of this kind (case 4)."""
    return Refused(f"upsampling by {factor} reads one position several times, which no stride does")
