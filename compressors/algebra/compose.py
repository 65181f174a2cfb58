"""Composition: one map for several, one after the other.

1. Taps at a of the first and b of the second land at d1*a + s1*d2*b; strides multiply; padding adds up to p1 + s1*p2;
   groups become gcd(g1, g2); the dilation becomes the greatest common divisor of the taps' distances. In one call per
   group, W = conv_transpose(W2, W1, stride = s1*d2, dilation = d1). The bias is b2 + (W2 summed over its taps) b1.
   Composition is associative, and its outputs have the size of the pair's. (RepVGG, 2021, and LayerMerge, 2024, have
   the case without dilation and groups and with s1 = 1.) Where it equals the pair is `exact`'s business.
2. Groups: a grouped map is a block-diagonal one. `regroup` makes its blocks coarser, `split_groups` as fine as the
   zeros allow.
3. A term that is constant over the grid and added between two maps (an embedding e = We t + be) composes to
   (W2 summed over its taps)(We t + be), exactly where the second map pads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import torch
from torch.nn import functional as F

from compressors.algebra.affine import Affine, regroup

_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def compose(first: Affine, second: Affine) -> Affine:
    """Returns one map for `second` after `first` (case 1); see `exactness` for where it equals the pair.

    Raises:
        ValueError: The channels or axes do not match, or one map pads with zeros and the other circularly.
    """
    if first.outputs != second.inputs or first.axes != second.axes:
        raise ValueError(
            f"{first.outputs} outputs on {first.axes} axes cannot feed {second.inputs} inputs on {second.axes}"
        )
    if first.padded and second.padded and first.circular != second.circular:
        raise ValueError("a map that pads with zeros and one that pads circularly have no common padding")
    groups = math.gcd(first.groups, second.groups)
    one, two = regroup(first, groups), regroup(second, groups)
    steps = tuple(s * d for s, d in zip(one.stride, two.dilation, strict=True))
    kept = tuple(tap_distance(*taps) for taps in zip(one.kernel, one.dilation, two.kernel, steps, strict=True))
    blocks = zip(one.weight.chunk(groups), two.weight.chunk(groups), strict=True)
    return Affine(
        torch.cat([_combine(w1, w2, steps, one.dilation, kept) for w1, w2 in blocks]),
        second.bias + second.tap_sum() @ first.bias,
        tuple(a * b for a, b in zip(one.stride, two.stride, strict=True)),
        add_up(first.before, first.stride, second.before),
        add_up(first.after, first.stride, second.after),
        kept,
        groups,
        (first.padded and first.circular) or (second.padded and second.circular),
    )


def compose_chain(maps: Sequence[Affine]) -> Affine:
    """Returns one map for several, the first of them applied first; see `chain_exactness`.

    Raises:
        ValueError: There is no map, or two neighbours do not fit; see `compose`.
    """
    if not maps:
        raise ValueError("a chain needs at least one map")
    return reduce(compose, maps)


def compose_shift(embedding: Affine, second: Affine) -> Affine:
    """Returns the linear that gives what an added, spatially constant term becomes behind a map (case 3).

    Args:
        embedding: A linear, whose outputs are added to every position of the second map's input.
        second: The map behind the addition; exact where it pads nothing. Its own bias stays with it.
    """
    total = second.tap_sum()
    return Affine(total @ embedding.weight, total @ embedding.bias)


def add_up(inner: tuple[int, ...], stride: tuple[int, ...], outer: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the padding of a composition along each axis: p1 + s1 * p2."""
    return tuple(p + s * q for p, s, q in zip(inner, stride, outer, strict=True))


def tap_distance(kernel1: int, dilation1: int, kernel2: int, step: int) -> int:
    """Returns the dilation of the composed kernel along one axis."""
    return math.gcd(dilation1 if kernel1 > 1 else 0, step if kernel2 > 1 else 0) or 1


def _combine(
    w1: torch.Tensor, w2: torch.Tensor, steps: tuple[int, ...], dilation1: tuple[int, ...], kept: tuple[int, ...]
) -> torch.Tensor:
    """Returns the kernel of one group: taps of both spread out, summed over the channels between."""
    if not steps:
        return w2 @ w1
    full = _TRANSPOSE[len(steps)](w2, w1, stride=steps, dilation=dilation1)
    return full[(slice(None), slice(None), *(slice(None, None, step) for step in kept))].contiguous()


def split_groups(affine: Affine) -> Affine:
    """Returns the same map with as many groups as its zeros allow (case 2); a linear has one."""
    if not affine.axes:
        return affine
    dense = affine.dense()
    used = dense.flatten(2).abs().sum(-1) > 0
    most = math.gcd(affine.inputs, affine.outputs)
    groups = next(g for g in range(most, 0, -1) if most % g == 0 and _is_block_diagonal(used, g))
    rows, columns = dense.chunk(groups), range(groups)
    width = affine.inputs // groups
    weight = torch.cat([part[:, c * width : (c + 1) * width] for c, part in zip(columns, rows, strict=True)])
    return replace(affine, weight=weight.contiguous(), groups=groups)


def _is_block_diagonal(used: torch.Tensor, groups: int) -> bool:
    """Says whether every used entry of a mask, shape (out, in), lies in one of the diagonal's blocks."""
    own = torch.arange(groups)
    rows, columns = own.repeat_interleave(used.shape[0] // groups), own.repeat_interleave(used.shape[1] // groups)
    return not bool((used & (rows[:, None] != columns)).any())
