import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from compressors import algebra
from compressors.algebra import Affine, Exactness

TOLERANCE = 1e-12
slow = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def line(taps, bias=0.0, stride=1, pad=0, dilation=1, after=None):
    """A map on one axis with one channel."""
    weight = torch.tensor(taps, dtype=torch.float64).reshape(1, 1, -1)
    bias = torch.tensor([float(bias)], dtype=torch.float64)
    return Affine(weight, bias, (stride,), (pad,), (pad if after is None else after,), (dilation,))


def taps(result: Affine) -> list[float]:
    return result.weight.flatten().tolist()


def run(maps, values):
    x = torch.tensor(values, dtype=torch.float64).reshape(1, 1, -1)
    for part in maps:
        x = part(x)
    return x.flatten().tolist()


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ({}, {}, [1, 2, 2, -2, -3]),
        ({"stride": 2}, {}, [1, 2, 3, 0, -1, -2, -3]),
        ({}, {"dilation": 2}, [1, 2, 3, 0, -1, -2, -3]),
        ({"dilation": 2}, {}, [1, 0, 1, 0, 1, 0, -3]),
    ],
)
def test_composed_taps_of_oracle_1(first, second, wanted):
    composed = algebra.compose(line([1, 2, 3], **first), line([1, 0, -1], **second))
    dense = torch.zeros(1, 1, (len(taps(composed)) - 1) * composed.dilation[0] + 1, dtype=torch.float64)
    dense[..., :: composed.dilation[0]] = composed.weight
    assert dense.flatten().tolist() == wanted


def test_padding_between_two_convolutions_differs_at_the_ends_only_oracle_2():
    pair = (line([1, 2, 3], pad=1), line([1, 0, -1], pad=1))
    values = [1, 2, 3, 4, 5]
    assert run(pair, values) == [-14, -12, -12, 6, 26]
    assert run([algebra.compose(*pair)], values) == [-11, -12, -12, 6, 21]
    assert run(algebra.pad_first(*pair), values) == [-11, -12, -12, 6, 21]
    biased = (line([1, 2, 3], bias=10, pad=1), pair[1])
    assert run(biased, values) == [-24, -12, -12, 6, 36]
    assert run([algebra.compose(*biased)], values) == [-11, -12, -12, 6, 21]


def test_bias_map_repairs_a_pointwise_first_oracle_3():
    pair = (line([2], bias=10), line([1, 2, 3], pad=1))
    values = [1, 2, 3, 4, 5]
    assert run(pair, values) == [66, 88, 100, 112, 58]
    composed = algebra.compose(*pair)
    assert run([composed], values) == [76, 88, 100, 112, 88]
    assert algebra.exactness(*pair, (5,)) is Exactness.BIAS_MAP
    biases = algebra.bias_map(*pair, (5,)).flatten()
    assert biases.tolist() == [50, 60, 60, 60, 30]
    without = Affine(composed.weight, torch.zeros(1, dtype=torch.float64), *_geometry(composed))
    repaired = torch.tensor(run([without], values), dtype=torch.float64) + biases
    assert repaired.tolist() == run(pair, values)


def _geometry(a: Affine):
    return a.stride, a.before, a.after, a.dilation, a.groups


def test_batch_norm_after_oracle_4():
    norm = nn.BatchNorm1d(1, eps=0.0)
    norm.running_mean.fill_(3)
    norm.running_var.fill_(4)
    with torch.no_grad():
        norm.weight.fill_(2)
        norm.bias.fill_(1)
    folded = algebra.scale_outputs(line([1, 2, 3], bias=5), *algebra.norm_scale(norm))
    assert taps(folded) == [1, 2, 3]
    assert folded.bias.tolist() == [3]


def test_linear_after_linear_oracle_5():
    first = Affine(torch.tensor([[1.0, 2], [3, 4], [5, 6]]).double(), torch.tensor([1.0, 0, -1]).double())
    second = Affine(torch.tensor([[1.0, 0, 2], [0, 1, -1]]).double(), torch.tensor([10.0, 20]).double())
    composed = algebra.compose(first, second)
    assert composed.weight.tolist() == [[11, 14], [-2, -2]]
    assert composed.bias.tolist() == [9, 21]


def test_residual_is_one_more_tap_oracle_6():
    assert taps(algebra.add(line([1, 2, 3], pad=1), algebra.identity(1, 1))) == [1, 3, 3]


def test_sizes_of_oracle_10():
    pair = algebra.compose(line([1] * 3, stride=2, pad=1), line([1] * 3, pad=1))
    assert (pair.kernel, pair.stride, pair.before, pair.after) == ((7,), (2,), (3,), (3,))
    three = algebra.compose(line([1] * 3, stride=2, pad=1), line([1] * 3))
    chain = algebra.compose(three, line([1] * 3, stride=2))
    assert (chain.kernel, chain.stride, chain.before) == ((11,), (4,), (1,))


@pytest.mark.parametrize(("first", "second", "wanted"), [(4, 6, 2), (3, 4, 1), (12, 12, 12)])
def test_groups_of_oracle_10(first, second, wanted):
    maps = [random_map(torch.Generator().manual_seed(0), 12, 12, 1, groups=g) for g in (first, second)]
    assert algebra.compose(*maps).groups == wanted


@pytest.mark.parametrize(("size", "wanted"), [(17, Exactness.CONSTANT), (16, Exactness.INEXACT)])
def test_strided_first_is_exact_for_odd_sizes_only_oracle_11(size, wanted):
    first, second = line([1, 2, 3], stride=2, pad=1), line([1, 2, 3], pad=1)
    assert algebra.exactness(first, second, (size,)) is wanted


def random_map(
    generator, inputs, outputs, axes, *, groups=1, kernel=3, stride=1, pad=0, after=None, dilation=1, bias=True
):
    weight = torch.randn(outputs, inputs // groups, *(kernel,) * axes, generator=generator, dtype=torch.float64)
    offset = torch.randn(outputs, generator=generator, dtype=torch.float64) * bool(bias)
    after = pad if after is None else after
    return Affine(weight, offset, (stride,) * axes, (pad,) * axes, (after,) * axes, (dilation,) * axes, groups)


maps = st.fixed_dictionaries(
    {
        "groups": st.sampled_from([1, 2, 4]),
        "kernel": st.integers(1, 4),
        "stride": st.integers(1, 3),
        "pad": st.integers(0, 3),
        "after": st.integers(0, 3),
        "dilation": st.integers(1, 2),
        "bias": st.booleans(),
    }
)


def build_pair(axes, one, two, size):
    generator = torch.Generator().manual_seed(size)
    first = random_map(generator, 4, 4, axes, **one)
    second = random_map(generator, 4, 8, axes, **two)
    middle = first.output_size((size,) * axes)
    assume(min(middle) >= 1 and min(second.output_size(middle)) >= 1)
    x = torch.randn(2, 4, *(size,) * axes, generator=generator, dtype=torch.float64)
    return first, second, x


def error(left: torch.Tensor, right: torch.Tensor) -> float:
    assert left.shape == right.shape
    return float(((left - right).abs().max() / left.abs().max().clamp_min(1)).detach())


@slow
@given(axes=st.integers(1, 2), one=maps, two=maps, size=st.integers(5, 9))
def test_composition_of_a_pair_padded_first_is_exact(axes, one, two, size):
    first, second, x = build_pair(axes, one, two, size)
    first, second = algebra.pad_first(first, second)
    assert error(second(first(x)), algebra.compose(first, second)(x)) < TOLERANCE


@slow
@given(axes=st.integers(1, 2), one=maps, two=maps, size=st.integers(5, 9))
def test_exactness_says_exactly_where_composition_is_exact(axes, one, two, size):
    first, second, x = build_pair(axes, one, two, size)
    pair, composed = second(first(x)), algebra.compose(first, second)
    verdict = algebra.exactness(first, second, x.shape[2:])
    if verdict is Exactness.BIAS_MAP:
        without = Affine(composed.weight, torch.zeros_like(composed.bias), *_geometry(composed))
        repaired = without(x) + algebra.bias_map(first, second, x.shape[2:])
        assert error(pair, repaired) < TOLERANCE
        assert error(pair, composed(x)) > TOLERANCE
    else:
        assert (error(pair, composed(x)) < TOLERANCE) == (verdict is Exactness.CONSTANT)


@slow
@given(
    left=st.tuples(st.sampled_from([1, 3, 5]), st.integers(0, 2), st.sampled_from([1, 2, 4])),
    right=st.tuples(st.sampled_from([1, 3]), st.sampled_from([1, 2, 4])),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
)
def test_sum_of_parallel_maps_is_one_map(left, right, stride, dilation):
    generator = torch.Generator().manual_seed(0)
    kernel, pad, groups = left
    one = random_map(generator, 4, 4, 2, kernel=kernel, pad=pad, groups=groups, stride=stride, dilation=dilation)
    spare = pad - dilation * (kernel - 1) // 2
    two_pad = spare + (right[0] - 1) // 2
    assume(two_pad >= 0)
    two = random_map(generator, 4, 4, 2, kernel=right[0], pad=two_pad, groups=right[1], stride=stride)
    x = torch.randn(2, 4, 9, 9, generator=generator, dtype=torch.float64)
    assert error(one(x) + two(x), algebra.add(one, two)(x)) < TOLERANCE


def test_residual_around_a_grouped_dilated_convolution():
    one = random_map(torch.Generator().manual_seed(1), 4, 4, 2, groups=2, dilation=2, pad=2)
    x = torch.randn(1, 4, 7, 7, dtype=torch.float64)
    total = algebra.add(one, algebra.identity(4, 2))
    assert total.groups == 2
    assert error(one(x) + x, total(x)) < TOLERANCE


def test_sum_of_different_strides_is_refused():
    with pytest.raises(ValueError, match="stride"):
        algebra.add(line([1, 2, 3], stride=2, pad=1), line([1]))


def test_sum_of_different_sizes_is_refused():
    with pytest.raises(ValueError, match="sizes"):
        algebra.add(line([1, 2, 3]), line([1]))


def test_composition_of_channels_that_do_not_meet_is_refused():
    with pytest.raises(ValueError, match="outputs"):
        algebra.compose(algebra.identity(3, 1), algebra.identity(4, 1))


def test_norm_before_is_exact_without_padding():
    generator = torch.Generator().manual_seed(0)
    one = random_map(generator, 4, 6, 2, groups=2)
    scale, shift = (torch.randn(4, generator=generator, dtype=torch.float64) for _ in range(2))
    x = torch.randn(2, 4, 6, 6, generator=generator, dtype=torch.float64)
    wanted = one(x * scale.reshape(-1, 1, 1) + shift.reshape(-1, 1, 1))
    assert error(wanted, algebra.scale_inputs(one, scale, shift)(x)) < TOLERANCE


def test_norm_after_a_linear():
    linear = nn.Linear(5, 4).double()
    norm = nn.BatchNorm1d(4).double().eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    x = torch.randn(7, 5, dtype=torch.float64)
    folded = algebra.scale_outputs(algebra.of_module(linear), *algebra.norm_scale(norm))
    assert error(norm(linear(x)), folded(x)) < TOLERANCE


def test_norm_without_statistics_is_refused():
    with pytest.raises(ValueError, match="running statistics"):
        algebra.norm_scale(nn.BatchNorm2d(3, track_running_stats=False))


def test_average_pool_is_a_map():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    wanted = nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=True)
    assert error(wanted, algebra.average_pool(3, (3, 3), (2, 2), (1, 1))(x)) < TOLERANCE


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(6, 4),
        nn.Conv1d(6, 4, 3, 2, 1),
        nn.Conv2d(6, 4, (3, 5), (1, 2), (1, 0), (2, 1), groups=2, bias=False),
        nn.Conv2d(6, 4, 4, padding="same"),
        nn.Conv3d(6, 4, 3, padding="valid"),
    ],
    ids=repr,
)
def test_module_to_map_and_back(module):
    module = module.double()
    axes = 0 if isinstance(module, nn.Linear) else module.weight.dim() - 2
    x = torch.randn(2, 6, *(9,) * axes, dtype=torch.float64)
    value = algebra.of_module(module)
    assert error(module(x), value(x)) < TOLERANCE
    assert error(module(x), algebra.to_module(value, torch.float64)(x)) < TOLERANCE


@pytest.mark.parametrize("module", [nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")], ids=repr)
def test_module_that_is_no_map_is_refused(module):
    with pytest.raises(ValueError, match="no zero-padded or circular"):
        algebra.of_module(module)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_regrouping_keeps_the_function(groups):
    one = random_map(torch.Generator().manual_seed(0), 8, 4, 2, groups=4)
    x = torch.randn(1, 8, 5, 5, dtype=torch.float64)
    dense = algebra.regroup(one, groups)
    assert dense.groups == groups
    assert error(one(x), dense(x)) < TOLERANCE


def test_regrouping_to_a_number_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="groups"):
        algebra.regroup(random_map(torch.Generator(), 4, 4, 1, groups=2), 4)


def test_composition_is_associative():
    generator = torch.Generator().manual_seed(0)
    a, b, c = (random_map(generator, 3, 3, 1, stride=2, pad=1) for _ in range(3))
    left, right = algebra.compose(algebra.compose(a, b), c), algebra.compose(a, algebra.compose(b, c))
    assert _geometry(left) == _geometry(right)
    assert error(left.weight, right.weight) < TOLERANCE
    assert math.isclose(float(left.bias.sum()), float(right.bias.sum()), rel_tol=1e-10)
