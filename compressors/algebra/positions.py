"""The bias of a chain by position.

1. A chain's value on zeros is the bias of its composition by position.
2. Away from the borders, where nothing that is read on the way lies outside a map between, it is one constant. Sizes
   that differ by a multiple of the product of the strides differ only in how often that constant appears: so the value
   is computed on the smallest such input and its constant repeated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from compressors.algebra.affine import Affine


@dataclass(frozen=True)
class Border:
    """How far the padding between maps reaches into the output of a chain, along one axis.

    Attributes:
        size: Positions of the output.
        before: Positions at the start that depend on it.
        after: Positions at the end that depend on it.
    """

    size: int
    before: int
    after: int

    @property
    def inner(self) -> int:
        """Positions between; below 1 where the borders meet."""
        return self.size - self.before - self.after


def bias_map(first: Affine, second: Affine, size: tuple[int, ...]) -> torch.Tensor:
    """Returns the bias of the composition by position, shape (out, *sizes); exact where `exactness` says BIAS_MAP."""
    return chain_bias_map((first, second), size)


def chain_bias_map(maps: Sequence[Affine], size: tuple[int, ...]) -> torch.Tensor:
    """Returns the chain's value on zeros (cases 1 and 2), shape (out, *sizes)."""
    borders = chain_borders(maps, size)
    small = smallest_size(maps, size)
    value = maps[0].weight.new_zeros(1, maps[0].inputs, *small)
    for one in maps:
        value = one(value)
    value = value[0]
    for axis, border in enumerate(borders, start=1):
        places, left_out = torch.arange(border.size, device=value.device), border.size - value.shape[axis]
        later = (places - left_out).clamp_min(border.before)
        value = value.index_select(axis, torch.where(places < border.before, places, later))
    return value


def smallest_size(maps: Sequence[Affine], size: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the smallest input whose bias map has all that the given size's has (case 2)."""
    axes = zip(chain_borders(maps, size), size, chain_strides(maps), strict=True)
    return tuple(n - step * max(min(border.inner - 1, (n - 1) // step), 0) for border, n, step in axes)


def chain_borders(maps: Sequence[Affine], size: tuple[int, ...]) -> tuple[Border, ...]:
    """Returns the border of each axis of the output, for inputs of the given sizes."""
    sizes = chain_sizes(maps, size)
    return tuple(_border(maps, [entry[axis] for entry in sizes], axis) for axis in range(len(size)))


def _border(maps: Sequence[Affine], sizes: Sequence[int], axis: int) -> Border:
    """Follows the first and last position that an output reads, step * v - start and further by `reach`."""
    n = sizes[-1]
    step, start, reach, before, after = 1, 0, 0, 0, 0
    for index in range(len(maps) - 1, 0, -1):
        one = maps[index]
        start, reach = one.stride[axis] * start + one.before[axis], one.stride[axis] * reach + one.extent[axis]
        step *= one.stride[axis]
        before = max(before, -(-start // step))
        after = max(after, n - -(-(sizes[index] + start - reach) // step))
    return Border(n, min(before, n), min(after, n))


def chain_sizes(maps: Sequence[Affine], size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Returns the sizes of the input and of every map's output."""
    sizes = [size]
    for one in maps:
        sizes.append(one.output_size(sizes[-1]))
    return sizes


def chain_strides(maps: Sequence[Affine]) -> tuple[int, ...]:
    """Returns the product of the strides along each axis."""
    return tuple(math.prod(one.stride[axis] for one in maps) for axis in range(maps[0].axes))
