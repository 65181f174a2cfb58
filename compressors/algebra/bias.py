"""Biases that depend on the position: what an exact merge needs where padding stands between two maps.

1. A map with a bias map, y = A x + B, stays one under what follows, S(A x + B) + c = (S A) x + S B + c, and under what
   precedes, A(F x + f) + B = (A F) x + A f + B; exact where the composed weights are.
2. Border classes. B depends on a position only through what it reads outside the maps between: so along each axis the
   positions of the first border and of the last border have a value each, and everything between has one. The table of
   these values gives the bias map at every size whose borders do not meet where the strides behind the first map are 1
   and the weights are exact at every size, else at all sizes that are congruent modulo the product of the strides.
3. Pre-padding. Where the first map has one tap and pads nothing, padding its input with constants c, W1 c = -b1, makes
   the padding between the maps a value that the first map gives. The composition then pads nothing and is exact; c
   exists iff b1 is in the range of W1 (always where W1 has full row rank). For a scale and shift, c = -shift / scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch.nn import functional as F

from compressors.algebra.affine import Affine, Refused
from compressors.algebra.compose import compose, sketch
from compressors.algebra.exact import Exactness, chain_exactness, exactness, is_chain_exact_at_every_size
from compressors.algebra.parallel import add, stack_outputs
from compressors.algebra.positions import bias_map, chain_bias_map, chain_borders, chain_strides, smallest_size

_SOLVED = 1e-10


@dataclass(frozen=True, eq=False)
class BiasMapped:
    """An affine map whose bias depends on the position, for inputs of one size (case 1).

    Attributes:
        affine: The linear part; its bias is zero.
        biases: Shape (out, *sizes of the output).
        size: Sizes of the input's axes.
    """

    affine: Affine
    biases: torch.Tensor
    size: tuple[int, ...]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the map's value; x has shape (batch, in, *size)."""
        return self.affine(x) + self.biases


def with_bias_map(affine: Affine, size: tuple[int, ...]) -> BiasMapped:
    """Returns the map with its bias written out by position, for inputs of the given sizes."""
    biases = _by_channel(affine.bias, affine.axes).expand(-1, *affine.output_size(size))
    return BiasMapped(affine.without_bias(), biases, size)


def compose_after(first: BiasMapped, second: Affine) -> BiasMapped | Refused:
    """Returns one map for `second` after `first` (case 1), or why the weights would not be exact."""
    if exactness(first.affine, second, first.size) is not Exactness.CONSTANT:
        return Refused("the second map reads padding where the merged kernel would see the input")
    whole = compose(first.affine, second).without_bias()
    return BiasMapped(whole, second(first.biases[None])[0], first.size)


def compose_before(first: Affine, second: BiasMapped, size: tuple[int, ...]) -> BiasMapped | Refused:
    """Returns one map for `second` after `first` on inputs of the given sizes, or why the weights would not be exact.

    Raises:
        ValueError: The first map's output has not the size that the second is for.
    """
    if first.output_size(size) != second.size:
        raise ValueError(f"the second map is for inputs of {second.size}, the first gives {first.output_size(size)}")
    if exactness(first, second.affine, size) is Exactness.INEXACT:
        return Refused("the second map reads padding where the merged kernel would see the input")
    whole = compose(first, second.affine).without_bias()
    return BiasMapped(whole, bias_map(first, second.affine, size) + second.biases, size)


def add_mapped(left: BiasMapped, right: BiasMapped) -> BiasMapped:
    """Returns the sum of two maps of the same input.

    Raises:
        ValueError: The maps are for other sizes, or cannot be added; see `add`.
    """
    if left.size != right.size:
        raise ValueError(f"one map is for inputs of {left.size}, the other of {right.size}")
    return BiasMapped(add(left.affine, right.affine, left.size), left.biases + right.biases, left.size)


def stack_mapped(maps: Sequence[BiasMapped]) -> BiasMapped:
    """Returns the concatenation of the outputs of maps of the same input.

    Raises:
        ValueError: There is no map, the maps are for different sizes, or cannot be stacked; see `stack_outputs`.
    """
    if len({one.size for one in maps}) != 1:
        raise ValueError(f"the maps are for inputs of {[one.size for one in maps]}; one size is needed")
    whole = stack_outputs([one.affine for one in maps], maps[0].size)
    return BiasMapped(whole, torch.cat([one.biases for one in maps]), maps[0].size)


@dataclass(frozen=True, eq=False)
class BorderBias:
    """A bias map as a table of border classes (case 2).

    Attributes:
        table: Shape (out, *(before + 1 + after)): each axis's first border, the value between, the last border.
        before: Positions of the first border of each axis.
        after: Positions of the last border of each axis.
        size: Sizes of an input that the table is for.
        period: The table holds for inputs whose sizes differ from `size` by multiples of this, per axis; 1: for all.
    """

    table: torch.Tensor
    before: tuple[int, ...]
    after: tuple[int, ...]
    size: tuple[int, ...]
    period: tuple[int, ...]

    def expand(self, size: tuple[int, ...]) -> torch.Tensor:
        """Returns the bias map for an output of the given sizes, shape (out, *size).

        Raises:
            ValueError: An axis is shorter than its two borders.
        """
        biases = self.table
        for axis, (n, first, last) in enumerate(zip(size, self.before, self.after, strict=True), start=1):
            if n < first + last:
                raise ValueError(f"borders of {first} and {last} positions do not fit into {n}")
            places = [*range(first), *[first] * (n - first - last), *range(first + 1, first + 1 + last)]
            biases = biases.index_select(axis, torch.tensor(places, device=biases.device))
        return biases


def border_bias(first: Affine, second: Affine, size: tuple[int, ...]) -> BorderBias | Refused:
    """Returns the bias of `compose(first, second)` as border classes; see `chain_border_bias`."""
    return chain_border_bias((first, second), size)


def chain_border_bias(maps: Sequence[Affine], size: tuple[int, ...]) -> BorderBias | Refused:
    """Returns the bias of `compose_chain(maps)` as border classes (case 2), or why the weights are not exact.

    The weights must be exact at the given size and at a larger one, beyond which nothing changes.
    """
    step = chain_strides(maps)
    extent = reduce(sketch, maps).extent
    large = tuple(n + s * -(-e // s) for n, s, e in zip(size, step, extent, strict=True))
    if Exactness.INEXACT in {chain_exactness(maps, size), chain_exactness(maps, large)}:
        return Refused("a map behind the first reads padding where the merged kernel would see the input")
    everywhere = is_chain_exact_at_every_size(maps)
    period = tuple(1 if everywhere and s == maps[0].stride[axis] else s for axis, s in enumerate(step))
    while any(border.inner < 1 for border in chain_borders(maps, size)):
        size = tuple(n + s for n, s in zip(size, step, strict=True))
    size = smallest_size(maps, size)
    table, borders = chain_bias_map(maps, size), chain_borders(maps, size)
    for axis, border in enumerate(borders, start=1):
        places = [*range(border.before + 1), *range(border.size - border.after, border.size)]
        table = table.index_select(axis, torch.tensor(places, device=table.device))
    return BorderBias(table, tuple(b.before for b in borders), tuple(b.after for b in borders), size, period)


@dataclass(frozen=True, eq=False)
class PrePadded:
    """A map that pads its input with one constant per channel (case 3).

    Attributes:
        constants: Shape (in,).
        before: Positions put before each axis.
        after: Positions put after each axis.
        affine: What follows; it pads nothing.
    """

    constants: torch.Tensor
    before: tuple[int, ...]
    after: tuple[int, ...]
    affine: Affine

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the map's value; x has shape (batch, in, *sizes)."""
        pads = [n for pair in zip(reversed(self.before), reversed(self.after), strict=True) for n in pair]
        constants = _by_channel(self.constants, self.affine.axes)
        return self.affine(F.pad(x - constants, pads) + constants)


def pre_pad(first: Affine, second: Affine) -> PrePadded | Refused:
    """Returns the pair as one map that pads its input with constants (case 3), or why there is none."""
    if first.circular or (second.circular and second.padded):
        return Refused("only padding with zeros can be moved in front as a constant")
    if any(n != 0 for n in first.extent + first.before + first.after):
        return Refused("the first map reads neighbours or pads, so no constant in front gives zeros behind it")
    weight = first.tap_sum()
    constants = torch.linalg.lstsq(weight, -first.bias[:, None], driver="gelsd").solution[:, 0]
    left = (weight @ constants + first.bias).abs().max()
    if left > _SOLVED * first.bias.abs().max().clamp_min(torch.finfo(torch.float64).tiny):
        return Refused("no constant input makes the first map give zero: its bias is not in the range of its weight")
    whole = compose(first, second)
    none = (0,) * whole.axes
    return PrePadded(constants, whole.before, whole.after, replace(whole, before=none, after=none, circular=False))


def _by_channel(values: torch.Tensor, axes: int) -> torch.Tensor:
    """Returns values per channel shaped to meet a grid: (channels, 1, ..., 1)."""
    return values.reshape(-1, *(1,) * axes)
