import random
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from compressors import algebra
from compressors.algebra import Affine, Exactness, Merge, Policy, Refused
from tests.compressors.algebra.maps import TOLERANCE, error, fits, form, forms, line, map_of, module_of, normal, quick

# Weights are normal: a path that should not count changes some output by far more than this.
DIFFERS = 1e-7


def configuration(generator: random.Random, axes: int, *, crop: bool) -> dict:
    low = -1 if crop else 0

    def draw(a, b):
        return tuple(generator.randint(a, b) for _ in range(axes))

    return {
        "stride": draw(1, 3),
        "before": draw(low, 3),
        "after": draw(low, 3),
        "dilation": draw(1, 2),
        "kernel": draw(1, 4),
        "groups": generator.choice([1, 1, 2]),
        "bias": generator.random() < 0.5,
    }


def build(source: torch.Generator, *, kernel, bias, groups, **geometry) -> Affine:
    weight = torch.randn(2, 2 // groups, *kernel, generator=source, dtype=torch.float64)
    return Affine(weight, torch.randn(2, generator=source, dtype=torch.float64) * bias, groups=groups, **geometry)


def verdict_in_numbers(maps, size, x) -> Exactness:
    """What comparing the values says, without looking at the geometry."""
    wanted = x
    for one in maps:
        wanted = one(wanted)
    whole = algebra.compose_chain(maps)
    off = error(wanted, whole(x))
    if off < TOLERANCE:
        return Exactness.CONSTANT
    assert off > DIFFERS
    repaired = error(wanted, whole.without_bias()(x) + algebra.chain_bias_map(maps, size))
    assert repaired < TOLERANCE or repaired > DIFFERS
    return Exactness.BIAS_MAP if repaired < TOLERANCE else Exactness.INEXACT


@pytest.mark.parametrize("length", [2, 3])
def test_exactness_agrees_with_the_values_of_3000_random_configurations(length):
    generator, source = random.Random(length), torch.Generator().manual_seed(length)
    seen = dict.fromkeys(Exactness, 0)
    while sum(seen.values()) < (3000 if length == 2 else 600):
        axes = generator.choice([1, 1, 2])
        size = tuple(generator.randint(3, 9) for _ in range(axes))
        crop = generator.random() < 0.2
        maps = [build(source, **configuration(generator, axes, crop=crop)) for _ in range(length)]
        if not fits(maps, size):
            continue
        verdict = algebra.chain_exactness(maps, size)
        x = torch.randn(1, 2, *size, generator=source, dtype=torch.float64)
        assert verdict is verdict_in_numbers(maps, size, x), (maps, size)
        seen[verdict] += 1
    assert min(seen.values()) > 30, seen


def test_circular_exactness_agrees_with_the_values():
    generator, source = random.Random(0), torch.Generator().manual_seed(0)
    seen = dict.fromkeys(Exactness, 0)
    while sum(seen.values()) < 400:
        size = (generator.randint(3, 12),)
        shapes = [configuration(generator, 1, crop=False) for _ in range(generator.choice([2, 2, 3]))]
        maps = [build(source, **shape, circular=True) for shape in shapes]
        if not fits(maps, size):
            continue
        verdict = algebra.chain_exactness(maps, size)
        x = torch.randn(1, 2, *size, generator=source, dtype=torch.float64)
        assert verdict is verdict_in_numbers(maps, size, x), (maps, size)
        seen[verdict] += 1
    assert seen[Exactness.CONSTANT] > 50
    assert seen[Exactness.INEXACT] > 50


def test_same_sized_circular_maps_compose():
    maps = [
        map_of(module_of(shape, 3, 3, seed), shape) for seed, shape in enumerate([form(2, pad=1, circular=True)] * 3)
    ]
    x = normal(1, 3, 6, 7)
    assert algebra.chain_exactness(maps, (6, 7)) is Exactness.CONSTANT
    assert error(maps[2](maps[1](maps[0](x))), algebra.compose_chain(maps)(x)) < TOLERANCE


def test_zeros_and_circular_padding_do_not_merge():
    zeros, circle = line([1, 2, 3], pad=1), replace(line([1, 2, 3], pad=1), circular=True)
    assert algebra.exactness(zeros, circle, (5,)) is Exactness.INEXACT
    result = algebra.merge(zeros, circle, (5,), Policy.PAD_FIRST)
    assert isinstance(result, Refused)
    assert "circular" in result.reason
    with pytest.raises(ValueError, match="no common padding"):
        algebra.compose(zeros, circle)


def one_by_one(**more):
    return form(2, kernel=1, **more)


ROWS = {
    "3x3 p1, 1x1": (form(2, pad=1), one_by_one(), 8, Exactness.CONSTANT),
    "depthwise 3x3 p1, 1x1": (form(2, pad=1, groups=4), one_by_one(), 8, Exactness.CONSTANT),
    "3x3 p1, 3x3 s2 d2 g2 without padding": (
        form(2, pad=1), form(2, stride=2, dilation=2, groups=2), 9, Exactness.CONSTANT
    ),
    "1x1 without bias, 3x3 p1": (one_by_one(bias=False), form(2, pad=1), 8, Exactness.CONSTANT),
    "1x1 with bias, 3x3 p1": (one_by_one(), form(2, pad=1), 8, Exactness.BIAS_MAP),
    "1x1 with bias, depthwise 3x3 p1": (one_by_one(), form(2, pad=1, groups=4), 8, Exactness.BIAS_MAP),
    "1x1 with bias, depthwise 3x3 s2 p1": (one_by_one(), form(2, pad=1, stride=2, groups=4), 8, Exactness.BIAS_MAP),
    "3x3 p1 without bias, 3x3 p1": (form(2, pad=1, bias=False), form(2, pad=1), 8, Exactness.INEXACT),
    "3x3 p1 with bias, 3x3 p1": (form(2, pad=1), form(2, pad=1), 8, Exactness.INEXACT),
    "full 3x3 p2 without bias, 3x3 p1": (form(2, pad=2, bias=False), form(2, pad=1), 8, Exactness.CONSTANT),
    "full 3x3 p2 with bias, 3x3 p1": (form(2, pad=2), form(2, pad=1), 8, Exactness.BIAS_MAP),
    "3x3 s2 p1 without bias, 3x3 p1, odd size": (
        form(2, pad=1, stride=2, bias=False), form(2, pad=1), 17, Exactness.CONSTANT
    ),
    "3x3 s2 p1 without bias, 3x3 p1, even size": (
        form(2, pad=1, stride=2, bias=False), form(2, pad=1), 16, Exactness.INEXACT
    ),
    "3x3 s2 p1 with bias, 3x3 p1, odd size": (
        form(2, pad=1, stride=2), form(2, pad=1), 17, Exactness.BIAS_MAP
    ),
    "patches 4x4 s4 with bias, 3x3 p1": (form(2, kernel=4, stride=4), form(2, pad=1), 16, Exactness.BIAS_MAP),
    "3x3 d2 p2, 3x3 d2 without padding": (form(2, dilation=2, pad=2), form(2, dilation=2), 11, Exactness.CONSTANT),
    "1x7 p(0,3) without bias, 7x1 p(3,0)": (
        form(2, kernel=(1, 7), pad=(0, 3), bias=False), form(2, kernel=(7, 1), pad=(3, 0)), 9, Exactness.CONSTANT
    ),
    "1x7 p(0,3) with bias, 7x1 p(3,0)": (
        form(2, kernel=(1, 7), pad=(0, 3)), form(2, kernel=(7, 1), pad=(3, 0)), 9, Exactness.BIAS_MAP
    ),
    "depthwise, depthwise": (form(2, groups=4), form(2, groups=4), 8, Exactness.CONSTANT),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_known_pairs(row):
    one, two, size, wanted = ROWS[row]
    modules = module_of(one, 4, 4, 1), module_of(two, 4, 4, 2)
    first, second = map_of(modules[0], one), map_of(modules[1], two)
    x = normal(2, 4, size, size)
    pair, whole = modules[1](modules[0](x)), algebra.compose(first, second)
    assert algebra.exactness(first, second, (size, size)) is wanted
    assert (error(pair, whole(x)) < TOLERANCE) == (wanted is Exactness.CONSTANT)
    repaired = whole.without_bias()(x) + algebra.bias_map(first, second, (size, size))
    assert (error(pair, repaired) < TOLERANCE) == (wanted is not Exactness.INEXACT)
    rings = [-(-p // s) for p, s in zip(two.before, two.stride, strict=True)]
    inner = (..., *(slice(ring, n - ring) for ring, n in zip(rings, pair.shape[2:], strict=True)))
    assert error(pair[inner], whole(x)[inner]) < TOLERANCE


def test_inverted_residual_with_its_skip_is_one_dense_convolution_and_a_bias_map():
    shapes = form(2, kernel=1), form(2, pad=1, groups=12), form(2, kernel=1)
    channels = (4, 12), (12, 12), (12, 4)
    maps = [map_of(module_of(s, *io, seed), s) for seed, (s, io) in enumerate(zip(shapes, channels, strict=True))]
    x = normal(2, 4, 7, 9)
    wanted = x + maps[2](maps[1](maps[0](x)))
    whole = algebra.residual(algebra.compose_chain(maps))
    assert (whole.kernel, whole.groups) == ((3, 3), 1)
    assert error(wanted, whole(x)) > DIFFERS
    assert algebra.chain_exactness(maps, (7, 9)) is Exactness.BIAS_MAP
    assert error(wanted, whole.without_bias()(x) + algebra.chain_bias_map(maps, (7, 9))) < TOLERANCE


def test_a_border_that_is_cropped_again_does_not_count():
    maps = [line([1, 2, 3], pad=1), line([1, 2, 3], pad=1), line([1], pad=-1)]
    assert algebra.exactness(*maps[:2], (6,)) is Exactness.INEXACT
    assert algebra.chain_exactness(maps, (6,)) is Exactness.CONSTANT


@quick
@given(one=forms(2), two=forms(2), three=forms(2), sizes=st.tuples(st.integers(5, 9), st.integers(5, 9)))
def test_a_chain_padded_first_is_exact(one, two, three, sizes):
    maps = [map_of(module_of(shape, 4, 4, seed), shape) for seed, shape in enumerate((one, two, three))]
    assume(fits(maps, sizes))
    x = normal(1, 4, *sizes)
    padded = algebra.pad_chain_first(maps)
    assert error(padded[2](padded[1](padded[0](x))), algebra.compose_chain(maps)(x)) < TOLERANCE
    assert algebra.chain_exactness(padded, sizes) is Exactness.CONSTANT


@quick
@given(one=forms(1), two=forms(1), size=st.integers(4, 9), policy=st.sampled_from(Policy))
def test_a_merge_computes_its_chain(one, two, size, policy):
    maps = tuple(map_of(module_of(shape, 4, 4, seed), shape) for seed, shape in enumerate((one, two)))
    assume(fits(maps, (size,)))
    merged, x = algebra.merge(*maps, (size,), policy), normal(2, 4, size)
    if isinstance(merged, Merge):
        assert error(merged.chain[1](merged.chain[0](x)), merged(x)) < TOLERANCE
        assert (merged.chain == maps) or policy is Policy.PAD_FIRST


POLICIES = {
    Policy.REFUSE: (False, False, False),
    Policy.EXACT: (True, False, False),
    Policy.BIAS_MAP: (True, True, False),
    Policy.PAD_FIRST: (True, True, True),
}


@pytest.mark.parametrize("policy", Policy)
def test_what_each_policy_merges(policy):
    pairs = [
        (line([1, 2, 3], pad=1), line([2])),
        (line([2], bias=1), line([1, 2, 3], pad=1)),
        (line([1, 2, 3], pad=1), line([1, 2, 3], pad=1)),
    ]
    results = [algebra.merge(*pair, (6,), policy) for pair in pairs]
    assert tuple(isinstance(result, Merge) for result in results) == POLICIES[policy]
    assert all(result.reason for result in results if isinstance(result, Refused))


def test_pad_first_says_what_must_be_trained():
    pair = line([1, 2, 3], pad=1), line([1, 0, -1], pad=1)
    merged = algebra.merge(*pair, (5,), Policy.PAD_FIRST)
    assert merged.exactness is Exactness.INEXACT
    assert [one.before for one in merged.chain] == [(2,), (0,)]


@quick
@given(one=forms(1, strides=2), two=forms(1, strides=2))
def test_exact_at_every_size_holds_at_every_size(one, two):
    maps = [map_of(module_of(replace(shape, bias=False), 4, 4, seed), shape) for seed, shape in enumerate((one, two))]
    assume(algebra.is_exact_at_every_size(*maps))
    verdicts = {algebra.exactness(*maps, (size,)) for size in range(8, 20) if fits(maps, (size,))}
    assert verdicts <= {Exactness.CONSTANT}


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("pad", [0, 1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
def test_closed_form_of_the_first_side(kernel, pad, stride, dilation):
    """The padding before is invisible to the first map iff p1 + s1 > d1 (k1 - 1)."""
    first = line([1] * kernel, pad=pad, stride=stride, dilation=dilation, after=8)
    second = line([1, 1], pad=1, after=0)
    verdict = algebra.exactness(first, second, (9,))
    assert (verdict is Exactness.CONSTANT) == (pad + stride > dilation * (kernel - 1))


@quick
@given(one=forms(2), two=forms(2), sizes=st.tuples(st.integers(5, 8), st.integers(5, 8)))
def test_ring_correction_gives_the_pair(one, two, sizes):
    modules = module_of(one, 4, 4, 1), module_of(two, 4, 4, 2)
    first, second = map_of(modules[0], one), map_of(modules[1], two)
    assume(fits([first, second], sizes))
    x = normal(2, 4, *sizes)
    whole = algebra.compose(first, second)
    corrected = whole(x) - algebra.ring_correction(first, second, x)
    assert error(modules[1](modules[0](x)), corrected) < TOLERANCE


def test_ring_correction_of_a_cropping_map_is_refused():
    with pytest.raises(ValueError, match="crops"):
        algebra.ring_correction(line([1]), line([1], pad=-1), normal(1, 1, 5))


def test_chain_that_is_exact_at_every_size():
    inverted = [line([2], bias=1), line([1, 2, 3], pad=1), line([3])]
    assert algebra.is_chain_exact_at_every_size(inverted)
    assert not algebra.is_chain_exact_at_every_size([*inverted, line([1, 2, 3], pad=1)])


def test_linears_merge_as_they_are():
    first, second = algebra.identity(4, 0), algebra.identity(4, 0)
    merged = algebra.merge(first, second, (), Policy.EXACT)
    assert merged.exactness is Exactness.CONSTANT
    assert error(normal(3, 5, 4), merged(normal(3, 5, 4))) < TOLERANCE
