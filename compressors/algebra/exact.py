"""Where a composition equals the maps that it replaces, and the policies of merging.

Follow what an output reads, back through a chain f1, ..., fn: output v of fn reads positions of the map before it,
those read positions of the map before that, down to the input. The composition sums over all such paths that end inside
the input; the chain sums only over those that stay inside every map between, because what lies outside is zero.

1. The weights are exact iff no path leaves a map between and yet ends inside the input (for a pair: no padding is read,
   or the first map, evaluated at the padding that is read, sees nothing of the input).
2. A map's bias reaches the output over all paths that start at it; the composed bias is exact iff none of them is
   outside at that map or behind it, or the bias is zero. Otherwise the bias depends on the position (`positions`).
3. Both hold per axis, with one exception: along an axis on which nothing at all is seen of the input, nothing is off.
4. Circular padding never leaves a map. There a path that wraps in a map of size H1, whose positions lie s positions of
   the input apart, moves by s * H1; all wraps of a path must add up to 0 modulo the input's size.

The verdicts hold for weights in general position: weights that cancel can only make a composition better.
Pad-first (after LayerMerge, 2024) moves all padding to the first map, which makes every composition exact, of a chain
that differs from the original at its border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce
from itertools import accumulate

import torch

from compressors.algebra.affine import Affine, Refused
from compressors.algebra.compose import compose_chain, sketch
from compressors.algebra.positions import chain_bias_map, chain_sizes


class Exactness(StrEnum):
    """Where a composition equals the chain that it replaces."""

    CONSTANT = "constant-bias"
    BIAS_MAP = "bias-map"
    INEXACT = "inexact"


class Policy(StrEnum):
    """What a merge may do; each allows what the one before it allows."""

    REFUSE = "refuse"
    EXACT = "exact"
    BIAS_MAP = "bias-map"
    PAD_FIRST = "pad-first"


_WHY = {
    Exactness.BIAS_MAP: "a bias does not reach the padding behind it, so the merged bias depends on the position",
    Exactness.INEXACT: "a map behind the first reads padding where the merged kernel would see the input",
}


@dataclass(frozen=True, eq=False)
class Merge:
    """One map for a chain.

    Attributes:
        affine: The composition; its bias is zero where `biases` is given.
        biases: The bias by position, shape (out, *sizes of the output); None where it is the same everywhere.
        chain: The maps whose function the merge computes exactly: the originals, or the originals padded first, which
            are then what must be trained.
        exactness: The verdict on the originals.
    """

    affine: Affine
    biases: torch.Tensor | None
    chain: tuple[Affine, ...]
    exactness: Exactness

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the value; x has shape (batch, in, *sizes)."""
        return self.affine(x) if self.biases is None else self.affine(x) + self.biases


def exactness(first: Affine, second: Affine, size: tuple[int, ...]) -> Exactness:
    """Returns how `compose(first, second)` relates to the pair for inputs of the given sizes; an iff, per axis."""
    return chain_exactness((first, second), size)


def chain_exactness(maps: Sequence[Affine], size: tuple[int, ...]) -> Exactness:
    """Returns how `compose_chain(maps)` relates to the chain for inputs of the given sizes (cases 1 to 4); an iff.

    Maps that pad in different ways are INEXACT: they have no composition.
    """
    modes = {one.circular for one in maps if one.padded}
    if len(modes) > 1:
        return Exactness.INEXACT
    if modes == {True}:
        return Exactness.CONSTANT if _wraps(maps, size) else Exactness.INEXACT
    axes = [_walk(maps, size, axis) for axis in range(len(size))]
    if any(axis.weights_off for axis in axes) and all(axis.sees_input for axis in axes):
        return Exactness.INEXACT
    off = {index for axis in axes for index in axis.biases_off if bool(maps[index].bias.any())}
    return Exactness.BIAS_MAP if off else Exactness.CONSTANT


@dataclass(frozen=True)
class _Walk:
    """What the paths along one axis do.

    Attributes:
        sees_input: Some path ends inside the input.
        weights_off: Some path leaves a map between and ends inside the input.
        biases_off: The maps whose output some path reads outside, there or further on.
    """

    sees_input: bool
    weights_off: bool
    biases_off: frozenset[int]


def _walk(maps: Sequence[Affine], size: tuple[int, ...], axis: int) -> _Walk:
    """Follows all paths along one axis from the last map's output back to the input (cases 1 to 3)."""
    sizes = [entry[axis] for entry in chain_sizes(maps, size)]
    clean, left = set(range(sizes[-1])), set[int]()
    biases: set[int] = set()
    for index in reversed(range(len(maps))):
        if left:
            biases.add(index)
        clean, left = _read(maps[index], axis, clean), _read(maps[index], axis, left)
        out = {u for u in clean if not 0 <= u < sizes[index]}
        clean, left = clean - out, left | (out if index else set())
    off = any(0 <= u < size[axis] for u in left)
    return _Walk(off or bool(clean), off, frozenset(biases))


def _wraps(maps: Sequence[Affine], size: tuple[int, ...]) -> bool:
    """Says whether all wraps of every path through circular maps add up to whole inputs (case 4)."""
    for axis, whole in enumerate(size):
        sizes, steps = [entry[axis] for entry in chain_sizes(maps, size)], _strides(maps, axis)
        reads = {
            (v, 0) for v in range(sizes[-1])
        }  # a position, and how far wrapping moved it, in the input's positions
        for index in reversed(range(1, len(maps))):
            taken = ((u, moved) for v, moved in reads for u in _read(maps[index], axis, {v}))
            n, step = sizes[index], steps[index]
            reads = {(u % n, (moved + u // n * n * step) % whole) for u, moved in taken}
        if any(moved for _, moved in reads):
            return False
    return True


def _strides(maps: Sequence[Affine], axis: int) -> list[int]:
    """Returns how many positions of the input lie between two neighbours in the input of each map."""
    steps = [1]
    for one in maps:
        steps.append(steps[-1] * one.stride[axis])
    return steps


def _read(one: Affine, axis: int, outputs: set[int]) -> set[int]:
    """Returns the positions of its input, padding included, that a map reads for the given outputs."""
    taps = [one.dilation[axis] * tap - one.before[axis] for tap in range(one.kernel[axis])]
    return {one.stride[axis] * v + tap for v in outputs for tap in taps}


def is_exact_at_every_size(first: Affine, second: Affine) -> bool:
    """Says whether zero-padded maps compose with exact weights at every input size (sufficient, not necessary).

    Per axis and end: the second map pads nothing, or the first map's padding covers its kernel: p1 >= d1 * (k1 - 1)
    (before the axis, p1 + s1 > d1 * (k1 - 1) is enough). The bias is then exact, or a `border_bias`.
    """
    if first.circular or second.circular:
        return False
    top = zip(first.before, second.before, first.extent, first.stride, strict=True)
    bottom = zip(first.after, second.after, first.extent, strict=True)
    return all(q <= 0 or p + s > e for p, q, e, s in top) and all(q <= 0 or p >= e for p, q, e in bottom)


def is_chain_exact_at_every_size(maps: Sequence[Affine]) -> bool:
    """Says whether a chain composes with exact weights at every input size (sufficient); see the pair's rule."""
    prefixes = accumulate(maps, sketch)
    return all(is_exact_at_every_size(*pair) for pair in zip(prefixes, maps[1:], strict=False))


def pad_first(first: Affine, second: Affine) -> tuple[Affine, Affine]:
    """Returns the pair with all padding moved to the first map, whose composition is exact everywhere."""
    one, two = pad_chain_first((first, second))
    return one, two


def pad_chain_first(maps: Sequence[Affine]) -> tuple[Affine, ...]:
    """Returns the chain with all padding moved to the first map, whose composition is exact everywhere."""
    whole = reduce(sketch, maps)
    zeros = (0,) * whole.axes
    rest = (replace(one, before=zeros, after=zeros, circular=False) for one in maps[1:])
    return replace(maps[0], before=whole.before, after=whole.after, circular=whole.circular), *rest


def merge(first: Affine, second: Affine, size: tuple[int, ...], policy: Policy) -> Merge | Refused:
    """Returns what a policy makes of a pair; see `merge_chain`."""
    return merge_chain((first, second), size, policy)


def merge_chain(maps: Sequence[Affine], size: tuple[int, ...], policy: Policy) -> Merge | Refused:
    """Returns what a policy makes of a chain for inputs of the given sizes.

    REFUSE merges nothing. EXACT merges where the composition equals the chain as it is. BIAS_MAP also where only the
    bias depends on the position. PAD_FIRST also where it equals the chain padded first, and prefers that to a bias map.
    """
    if len({one.circular for one in maps if one.padded}) > 1:
        return Refused("one of the maps pads with zeros and another circularly")
    verdict = chain_exactness(maps, size)
    if policy is Policy.REFUSE:
        return Refused(f"merging is switched off (it would be: {verdict})")
    whole = compose_chain(maps)
    if verdict is Exactness.CONSTANT:
        return Merge(whole, None, tuple(maps), verdict)
    if policy is Policy.PAD_FIRST:
        return Merge(whole, None, pad_chain_first(maps), verdict)
    if verdict is Exactness.BIAS_MAP and policy is Policy.BIAS_MAP:
        return Merge(whole.without_bias(), chain_bias_map(maps, size), tuple(maps), verdict)
    return Refused(_WHY[verdict])


def ring_correction(first: Affine, second: Affine, x: torch.Tensor) -> torch.Tensor:
    """Returns what must be taken from the composition's value to get the pair's, shape (batch, out, *sizes).

    It is the second map's linear part, applied to the first map's response on the ring of positions that the pair has
    as zeros; its cost grows with the perimeter only (after LayerMerge, 2024).

    Args:
        first: Zero-padded.
        second: Zero-padded.
        x: Shape (batch, in, *sizes).

    Raises:
        ValueError: The second map crops.
    """
    if min(second.before + second.after, default=0) < 0:
        raise ValueError("the second map crops, so there is no ring around the first map's output")
    one, two = pad_first(first, second)
    ring = one(x)
    middle = first.output_size(tuple(x.shape[2:]))
    inside = (slice(p, p + n) for p, n in zip(second.before, middle, strict=True))
    ring[(slice(None), slice(None), *inside)] = 0
    return two.without_bias()(ring)
