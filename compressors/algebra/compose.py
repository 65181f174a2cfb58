"""Composition: one map for several, one after the other.

1. Taps at a of the first and b of the second land at d1*a + s1*d2*b; strides multiply; padding adds up to p1 + s1*p2;
   groups become gcd(g1, g2); the dilation becomes the greatest common divisor of the taps' distances. The weights are
   one matrix product per tap of the second, added up where taps land. The bias is b2 + (W2 summed over its taps) b1.
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
from itertools import product

import torch

from compressors.algebra.affine import Affine, regroup


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
    whole = sketch(first, second)
    weight = _combine(regroup(first, whole.groups), regroup(second, whole.groups), whole)
    return replace(whole, weight=weight, bias=second.bias + second.tap_sum() @ first.bias)


def sketch(first: Affine, second: Affine) -> Affine:
    """Returns a map with the shape of the composition, all of whose weights are one shared, meaningless number."""
    groups = math.gcd(first.groups, second.groups)
    steps = add_up((0,) * first.axes, first.stride, second.dilation)
    kept = tuple(map(_tap_distance, first.kernel, first.dilation, second.kernel, steps))
    reach = add_up(first.extent, first.stride, second.extent)
    kernel = (e // d + 1 for e, d in zip(reach, kept, strict=True))
    return Affine(
        second.weight.new_zeros(()).expand(second.outputs, first.inputs // groups, *kernel),
        second.bias,
        tuple(a * b for a, b in zip(first.stride, second.stride, strict=True)),
        add_up(first.before, first.stride, second.before),
        add_up(first.after, first.stride, second.after),
        kept,
        groups,
        (first.padded and first.circular) or (second.padded and second.circular),
    )


def _combine(one: Affine, two: Affine, whole: Affine) -> torch.Tensor:
    """Returns the weight of a composition of two maps that have its groups, shape (out, in / groups, *kernel)."""
    if not two.axes:
        return two.weight @ one.weight
    groups = whole.groups
    # (groups, middle / groups, in / groups * taps), then (groups, out / groups, middle / groups, taps)
    inner = one.weight.reshape(groups, one.outputs // groups, -1)
    outer = two.weight.reshape(groups, two.outputs // groups, two.inputs // groups, -1)
    weight = one.weight.new_zeros(whole.weight.shape)
    for number, tap in enumerate(product(*map(range, two.kernel))):
        starts = (s * d * b // k for s, d, b, k in zip(one.stride, two.dilation, tap, whole.dilation, strict=True))
        ends = zip(starts, one.extent, one.dilation, whole.dilation, strict=True)
        places = (slice(start, start + e // k + 1, max(d // k, 1)) for start, e, d, k in ends)
        part = (outer[..., number] @ inner).reshape(two.outputs, -1, *one.kernel)
        weight[(slice(None), slice(None), *places)] += part
    return weight


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


def _tap_distance(kernel1: int, dilation1: int, kernel2: int, step: int) -> int:
    """Returns the dilation of the composed kernel along one axis."""
    return math.gcd(dilation1 if kernel1 > 1 else 0, step if kernel2 > 1 else 0) or 1


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
    own = torch.arange(groups, device=used.device)
    rows, columns = own.repeat_interleave(used.shape[0] // groups), own.repeat_interleave(used.shape[1] // groups)
    return not bool((used & (rows[:, None] != columns)).any())
