"""The geometry of a composed affine map: what its kernel, stride, padding and groups will be, without its weights.

Output position v of a map reads positions s*v - p + d*t of its input, t = 0, ..., k - 1, on each axis. Composition and
sums follow the same rules as the maps themselves (see `compressors.algebra`):

1. f2 after f1: strides multiply, p = p1 + s1*p2, the kernel reaches e1 + s1*e2 positions, groups gcd(g1, g2).
2. f1 + f2: the union of what both reach, on the widest common distance of taps; groups gcd(g1, g2).
3. What merging a pair needs follows from where the second map reads padding: nothing, a bias that depends on the
   position, or all padding moved to the front.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import torch

from compressors import algebra


class Padding(StrEnum):
    """What makes a merge exact, from the least to the most."""

    KEEP = "keep"
    BIAS_MAP = "bias-map"
    FIRST = "first"

    def at_least(self, other: Padding) -> Padding:
        """Returns the one that demands more."""
        order = list(Padding)
        return max(self, other, key=order.index)


@dataclass(frozen=True)
class Geometry:
    """One composed map, without weights.

    Attributes:
        before: Zeros before each axis; negative crops.
        behind: Zeros after each axis; negative crops.
        extent: Distance between first and last tap, in input positions.
        stride: Per axis.
        spacing: Distance of neighbouring taps.
        groups: Number of groups.
        biased: Whether a constant may have been added so far.
        sided: Whether a side input has been added so far: a constant of its own for every sample.
        padding: What makes merging it exact.
    """

    before: tuple[int, ...]
    behind: tuple[int, ...]
    extent: tuple[int, ...]
    stride: tuple[int, ...]
    spacing: tuple[int, ...]
    groups: int
    biased: bool = False
    sided: bool = False
    padding: Padding = Padding.KEEP

    @property
    def kernel(self) -> tuple[int, ...]:
        """Taps per axis."""
        return tuple(e // d + 1 for e, d in zip(self.extent, self.spacing, strict=True))


def start(channels: int, axes: int) -> Geometry:
    """Returns the geometry of doing nothing."""
    return Geometry((0,) * axes, (0,) * axes, (0,) * axes, (1,) * axes, (1,) * axes, channels)


# Networks repeat their blocks, and the search for regions asks for the same pairs over and over.
_remembered = lru_cache(maxsize=1 << 14)


@_remembered
def after(first: Geometry, second: Geometry, size: tuple[int, ...] | None) -> Geometry:
    """Returns the geometry of `second` after `first` (cases 1 and 3).

    Args:
        first: What is done first.
        second: What follows, relative to the first's output.
        size: Sizes of the first's input; None where what makes it exact need not be known.
    """
    axes = range(len(first.stride))
    spacings = [
        math.gcd(
            first.spacing[a] if first.extent[a] else 0, first.stride[a] * second.spacing[a] if second.extent[a] else 0
        )
        for a in axes
    ]
    return Geometry(
        before=tuple(first.before[a] + first.stride[a] * second.before[a] for a in axes),
        behind=tuple(first.behind[a] + first.stride[a] * second.behind[a] for a in axes),
        extent=tuple(first.extent[a] + first.stride[a] * second.extent[a] for a in axes),
        stride=tuple(first.stride[a] * second.stride[a] for a in axes),
        spacing=tuple(spacing or 1 for spacing in spacings),
        groups=math.gcd(first.groups, second.groups),
        biased=first.biased or second.biased,
        sided=first.sided or second.sided,
        padding=first.padding if size is None else first.padding.at_least(_needed(first, second, size)),
    )


@_remembered
def together(left: Geometry, right: Geometry) -> Geometry:
    """Returns the geometry of the sum of two maps of the same input (case 2)."""
    axes = range(len(left.stride))
    before = tuple(max(left.before[a], right.before[a]) for a in axes)
    ends = tuple(max(side.extent[a] - side.before[a] for side in (left, right)) for a in axes)
    spacing = tuple(
        math.gcd(*(side.spacing[a] for side in (left, right) if side.extent[a]), left.before[a] - right.before[a]) or 1
        for a in axes
    )
    return replace(
        left,
        before=before,
        behind=tuple(max(left.behind[a], right.behind[a]) for a in axes),
        extent=tuple(before[a] + ends[a] for a in axes),
        spacing=spacing,
        groups=math.gcd(left.groups, right.groups),
        biased=left.biased or right.biased,
        sided=left.sided or right.sided,
        padding=left.padding.at_least(right.padding),
    )


def _needed(first: Geometry, second: Geometry, size: tuple[int, ...]) -> Padding:
    """Case 3: returns what makes merging the pair exact, at these sizes."""
    if max(second.before + second.behind, default=0) <= 0:
        return Padding.KEEP
    if first.sided:
        return Padding.FIRST
    verdict = algebra.exactness(_stand_in(first), _stand_in(second), size)
    if verdict is algebra.Exactness.INEXACT:
        return Padding.FIRST
    return Padding.BIAS_MAP if verdict is algebra.Exactness.BIAS_MAP else Padding.KEEP


def _stand_in(geometry: Geometry) -> algebra.Affine:
    """Returns a map of one channel with this geometry, for the exactness predicate, which looks at nothing else."""
    return algebra.Affine(
        weight=torch.ones(1, 1, *geometry.kernel, dtype=torch.float64),
        bias=torch.full((1,), float(geometry.biased), dtype=torch.float64),
        stride=geometry.stride,
        before=geometry.before,
        after=geometry.behind,
        dilation=geometry.spacing,
    )
