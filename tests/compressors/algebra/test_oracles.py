"""Numbers worked out by hand."""

import pytest
import torch
from torch import nn

from compressors import algebra
from compressors.algebra import Affine, Exactness
from tests.compressors.algebra.maps import TOLERANCE, error, form, line, map_of, module_of, normal, run


def taps(result: Affine) -> list[float]:
    return result.weight.flatten().tolist()


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ({}, {}, [1, 2, 2, -2, -3]),
        ({"stride": 2}, {}, [1, 2, 3, 0, -1, -2, -3]),
        ({}, {"dilation": 2}, [1, 2, 3, 0, -1, -2, -3]),
        ({"dilation": 2}, {}, [1, 0, 1, 0, 1, 0, -3]),
    ],
)
def test_composed_taps_of(first, second, wanted):
    composed = algebra.compose(line([1, 2, 3], **first), line([1, 0, -1], **second))
    dense = torch.zeros(1, 1, (len(taps(composed)) - 1) * composed.dilation[0] + 1, dtype=torch.float64)
    dense[..., :: composed.dilation[0]] = composed.weight
    assert dense.flatten().tolist() == wanted


def test_padding_between_two_convolutions_differs_at_the_ends_only():
    pair = (line([1, 2, 3], pad=1), line([1, 0, -1], pad=1))
    values = [1, 2, 3, 4, 5]
    assert run(pair, values) == [-14, -12, -12, 6, 26]
    assert run([algebra.compose(*pair)], values) == [-11, -12, -12, 6, 21]
    assert run(algebra.pad_first(*pair), values) == [-11, -12, -12, 6, 21]
    biased = (line([1, 2, 3], bias=10, pad=1), pair[1])
    assert run(biased, values) == [-24, -12, -12, 6, 36]
    assert run([algebra.compose(*biased)], values) == [-11, -12, -12, 6, 21]


def test_bias_map_repairs_a_pointwise_first():
    pair = (line([2], bias=10), line([1, 2, 3], pad=1))
    values = [1, 2, 3, 4, 5]
    assert run(pair, values) == [66, 88, 100, 112, 58]
    composed = algebra.compose(*pair)
    assert run([composed], values) == [76, 88, 100, 112, 88]
    assert algebra.exactness(*pair, (5,)) is Exactness.BIAS_MAP
    biases = algebra.bias_map(*pair, (5,)).flatten()
    assert biases.tolist() == [50, 60, 60, 60, 30]
    repaired = torch.tensor(run([composed.without_bias()], values), dtype=torch.float64) + biases
    assert repaired.tolist() == run(pair, values)
    padded = algebra.pre_pad(*pair)
    assert padded.constants.tolist() == pytest.approx([-5])
    assert run([padded], values) == pytest.approx(run(pair, values))


def test_batch_norm_after():
    norm = nn.BatchNorm1d(1, eps=0.0)
    norm.running_mean.fill_(3)
    norm.running_var.fill_(4)
    with torch.no_grad():
        norm.weight.fill_(2)
        norm.bias.fill_(1)
    folded = algebra.scale_outputs(line([1, 2, 3], bias=5), *algebra.norm_scale(norm))
    assert taps(folded) == [1, 2, 3]
    assert folded.bias.tolist() == [3]


def test_linear_after_linear():
    first = Affine(torch.tensor([[1.0, 2], [3, 4], [5, 6]]).double(), torch.tensor([1.0, 0, -1]).double())
    second = Affine(torch.tensor([[1.0, 0, 2], [0, 1, -1]]).double(), torch.tensor([10.0, 20]).double())
    composed = algebra.compose(first, second)
    assert composed.weight.tolist() == [[11, 14], [-2, -2]]
    assert composed.bias.tolist() == [9, 21]


def test_residual_is_one_more_tap():
    assert taps(algebra.add(line([1, 2, 3], pad=1), algebra.identity(1, 1))) == [1, 3, 3]


def test_sizes_and_strides_of_compositions():
    pair = algebra.compose(line([1] * 3, stride=2, pad=1), line([1] * 3, pad=1))
    assert (pair.kernel, pair.stride, pair.before, pair.after) == ((7,), (2,), (3,), (3,))
    three = algebra.compose(line([1] * 3, stride=2, pad=1), line([1] * 3))
    chain = algebra.compose(three, line([1] * 3, stride=2))
    assert (chain.kernel, chain.stride, chain.before) == ((11,), (4,), (1,))


@pytest.mark.parametrize(("first", "second", "wanted"), [(4, 6, 2), (3, 4, 1), (12, 12, 12)])
def test_groups_become_their_gcd(first, second, wanted):
    maps = [map_of(module_of(form(1, groups=g), 12, 12), form(1, groups=g)) for g in (first, second)]
    assert algebra.compose(*maps).groups == wanted


@pytest.mark.parametrize(("size", "wanted"), [(17, Exactness.CONSTANT), (16, Exactness.INEXACT)])
def test_strided_first_is_exact_for_odd_sizes_only(size, wanted):
    first, second = line([1, 2, 3], stride=2, pad=1), line([1, 2, 3], pad=1)
    assert algebra.exactness(first, second, (size,)) is wanted


def test_reordered_padding_equals_the_merged_map():
    shapes = [form(2, pad=1)] * 3
    maps = [map_of(module_of(shape, 4, 4, seed), shape) for seed, shape in enumerate(shapes)]
    x = normal(1, 4, 9, 9)
    original = maps[2](maps[1](maps[0](x)))
    first, second, third = algebra.pad_chain_first(maps)
    merged = algebra.compose_chain(maps)(x)
    assert error(third(second(first(x))), merged) < TOLERANCE
    # Two convolutions behind the first pad one each: a ring of two differs, and nothing inside it.
    assert error(original[..., 2:-2, 2:-2], merged[..., 2:-2, 2:-2]) < TOLERANCE
    assert error(original[..., 1:-1, 1:-1], merged[..., 1:-1, 1:-1]) > 1e-3


def test_bias_map_of_a_pointwise_first_does_not_depend_on_the_input():
    shapes = form(2, kernel=1), form(2, pad=1)
    first, second = (map_of(module_of(shape, 4, 4, seed), shape) for seed, shape in enumerate(shapes))
    differences = [
        algebra.compose(first, second)(x) - second(first(x)) for x in (normal(1, 4, 6, 6), normal(1, 4, 6, 6) * 7)
    ]
    assert error(*differences) < TOLERANCE
    assert not differences[0][..., 1:-1, 1:-1].abs().gt(TOLERANCE).any()


def test_pointwise_then_strided_depthwise_then_pointwise_pads_first():
    shapes = form(2, kernel=1), form(2, stride=2, pad=1, groups=4), form(2, kernel=1)
    maps = [map_of(module_of(shape, 4, 4, seed), shape) for seed, shape in enumerate(shapes)]
    whole, x = algebra.compose_chain(maps), normal(1, 4, 8, 8)
    first, second, third = algebra.pad_chain_first(maps)
    assert (whole.kernel, whole.stride, first.before) == ((3, 3), (2, 2), (1, 1))
    assert error(third(second(first(x))), whole(x)) < TOLERANCE
