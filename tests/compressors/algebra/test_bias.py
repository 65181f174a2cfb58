from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from compressors import algebra
from compressors.algebra import BorderBias, Exactness, PrePadded, Refused
from tests.compressors.algebra.maps import (
    TOLERANCE,
    error,
    fits,
    form,
    forms,
    line,
    map_of,
    module_of,
    normal,
    pair_of,
    quick,
)  # fmt: skip


def maps_of(shapes, channels):
    modules = [module_of(s, *io, seed) for seed, (s, io) in enumerate(zip(shapes, channels, strict=True))]
    return modules, [map_of(m, s) for m, s in zip(modules, shapes, strict=True)]


def test_map_with_a_bias_map_goes_on_through_what_follows():
    """1x1, depthwise 3x3 with padding, 1x1, as one map and a bias by position."""
    modules, maps = maps_of((form(2, kernel=1), form(2, pad=1, groups=8), form(2, kernel=1)), ((4, 8), (8, 8), (8, 6)))
    x = normal(2, 4, 6, 7)
    start = algebra.with_bias_map(maps[0], (6, 7))
    whole = algebra.compose_after(algebra.compose_after(start, maps[1]), maps[2])
    assert error(modules[2](modules[1](modules[0](x))), whole(x)) < TOLERANCE
    assert not whole.affine.bias.any()


def test_map_with_a_bias_map_takes_what_precedes():
    modules, maps = maps_of((form(2, stride=2, pad=1), form(2, kernel=1), form(2, pad=1)), ((4, 4), (4, 4), (4, 4)))
    last = algebra.compose_after(algebra.with_bias_map(maps[1], (4, 4)), maps[2])
    refused = algebra.compose_before(maps[0], last, (8, 8))
    assert isinstance(refused, Refused)
    last = algebra.compose_after(algebra.with_bias_map(maps[1], (5, 5)), maps[2])
    whole = algebra.compose_before(maps[0], last, (9, 9))
    x = normal(1, 4, 9, 9)
    assert error(modules[2](modules[1](modules[0](x))), whole(x)) < TOLERANCE


def test_map_with_a_bias_map_behind_another_size_is_refused():
    with pytest.raises(ValueError, match="inputs of"):
        algebra.compose_before(line([1]), algebra.with_bias_map(line([1]), (4,)), (5,))


def test_following_with_inexact_weights_is_refused():
    start = algebra.with_bias_map(line([1, 2, 3], pad=1), (5,))
    assert isinstance(algebra.compose_after(start, line([1, 2, 3], pad=1)), Refused)


@quick
@given(one=forms(1), two=forms(1), size=st.integers(5, 9))
def test_composition_of_maps_with_bias_maps_is_exact_where_it_is_not_refused(one, two, size):
    modules, maps = maps_of((one, two), ((4, 4), (4, 4)))
    assume(fits(maps, (size,)))
    x = normal(1, 4, size)
    whole = algebra.compose_after(algebra.with_bias_map(maps[0], (size,)), maps[1])
    assert isinstance(whole, Refused) == (algebra.exactness(*maps, (size,)) is Exactness.INEXACT)
    if not isinstance(whole, Refused):
        assert error(modules[1](modules[0](x)), whole(x)) < TOLERANCE


def test_residual_of_a_map_with_a_bias_map():
    modules, maps = maps_of((form(2, kernel=1), form(2, pad=1)), ((4, 8), (8, 4)))
    x = normal(2, 4, 6, 6)
    body = algebra.compose_after(algebra.with_bias_map(maps[0], (6, 6)), maps[1])
    whole = algebra.add_mapped(body, algebra.with_bias_map(algebra.identity(4, 2), (6, 6)))
    assert error(x + modules[1](modules[0](x)), whole(x)) < TOLERANCE


def test_concatenation_of_maps_with_bias_maps():
    """Branches of an inception block without activations: 1x1 and 1x1 before a padded 3x3."""
    modules, maps = maps_of((form(2, kernel=1), form(2, kernel=1), form(2, pad=1)), ((4, 3), (4, 5), (5, 6)))
    x = normal(2, 4, 6, 7)
    left, right = (algebra.with_bias_map(one, (6, 7)) for one in maps[:2])
    whole = algebra.stack_mapped([left, algebra.compose_after(right, maps[2])])
    assert error(torch.cat([modules[0](x), modules[2](modules[1](x))], 1), whole(x)) < TOLERANCE


def test_maps_for_different_sizes_are_not_stacked():
    with pytest.raises(ValueError, match="one size"):
        algebra.stack_mapped([algebra.with_bias_map(line([1]), (n,)) for n in (4, 5)])


def test_maps_for_different_sizes_are_not_added():
    with pytest.raises(ValueError, match="one map is for"):
        algebra.add_mapped(algebra.with_bias_map(line([1]), (4,)), algebra.with_bias_map(line([1]), (5,)))


@quick
@given(one=forms(2, strides=2), two=forms(2, strides=2), sizes=st.tuples(st.integers(5, 8), st.integers(5, 8)))
def test_border_classes_give_the_bias_map_at_every_size_they_hold_for(one, two, sizes):
    _, maps = maps_of((one, two), ((4, 4), (4, 4)))
    assume(fits(maps, sizes))
    table = algebra.border_bias(*maps, sizes)
    assert isinstance(table, Refused) == (algebra.exactness(*maps, sizes) is Exactness.INEXACT)
    assume(isinstance(table, BorderBias))
    for steps in range(3):
        size = tuple(n + steps * p for n, p in zip(table.size, table.period, strict=True))
        assert algebra.exactness(*maps, size) is not Exactness.INEXACT
        wanted = algebra.bias_map(*maps, size)
        assert error(wanted, table.expand(tuple(wanted.shape[1:]))) < TOLERANCE


@quick
@given(one=forms(1), two=forms(1), three=forms(1), size=st.integers(4, 60))
def test_bias_map_of_a_chain_is_its_value_on_zeros(one, two, three, size):
    _, maps = maps_of((one, two, three), ((4, 4), (4, 4), (4, 4)))
    assume(fits(maps, (size,)))
    wanted = maps[2](maps[1](maps[0](torch.zeros(1, 4, size, dtype=torch.float64))))[0]
    assert error(wanted, algebra.chain_bias_map(maps, (size,))) < TOLERANCE


def test_border_classes_of_a_strided_inverted_residual_hold_for_all_even_sizes():
    shapes = form(2, kernel=1), form(2, pad=1, stride=2, groups=8), form(2, kernel=1)
    modules, maps = maps_of(shapes, ((4, 8), (8, 8), (8, 6)))
    table, whole = algebra.chain_border_bias(maps, (112, 112)), algebra.compose_chain(maps).without_bias()
    assert table.table.shape == (6, 2, 2)
    for size in ((8, 8), (10, 30)):
        x = normal(1, 4, *size)
        assert table.period == (2, 2)
        biases = table.expand(whole.output_size(size))
        assert error(modules[2](modules[1](modules[0](x))), whole(x) + biases) < TOLERANCE


def test_chain_with_inexact_weights_has_no_border_classes():
    assert isinstance(algebra.chain_border_bias([line([1, 2, 3], pad=1)] * 3, (9,)), Refused)


def test_border_of_a_pointwise_before_a_3x3_is_a_3x3_table_for_all_sizes():
    _, maps = maps_of((form(2, kernel=1), form(2, pad=1)), ((4, 8), (8, 6)))
    table = algebra.border_bias(*maps, (20, 30))
    assert table.table.shape == (6, 3, 3)
    assert table.period == (1, 1)
    for size in ((2, 2), (3, 3), (3, 50)):
        assert error(algebra.bias_map(*maps, size), table.expand(size)) < TOLERANCE


def test_axis_shorter_than_its_borders_is_refused():
    _, maps = maps_of((form(2, kernel=1), form(2, kernel=5, pad=2)), ((4, 8), (8, 6)))
    table = algebra.border_bias(*maps, (9, 9))
    with pytest.raises(ValueError, match="do not fit"):
        table.expand((3, 9))


@quick
@given(one=forms(2, pads=(0, 0), kernels=1), two=forms(2), sizes=st.tuples(st.integers(5, 8), st.integers(5, 8)))
def test_padding_with_the_right_constants_is_exact(one, two, sizes):
    modules, maps = maps_of((replace(one, groups=1), two), ((8, 4), (4, 4)))
    assume(fits(maps, sizes))
    x = normal(2, 8, *sizes)
    padded = algebra.pre_pad(*maps)
    assert isinstance(padded, PrePadded)
    assert not padded.affine.padded
    # The constants come from a least squares solution, whose condition is that of a random 4 x 8 matrix.
    assert error(modules[1](modules[0](x)), padded(x)) < 1e-10


def test_no_constants_for_a_bias_outside_the_range_of_the_weight():
    _, maps = maps_of((form(2, kernel=1), form(2, pad=1)), ((4, 8), (8, 6)))
    result = algebra.pre_pad(*maps)
    assert isinstance(result, Refused)
    assert "range" in result.reason


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (line([1, 2]), line([1, 2, 3], pad=1)),
        (line([1], pad=1), line([1, 2, 3], pad=1)),
        (line([1]), replace(line([1, 2, 3], pad=1), circular=True)),
    ],
)
def test_maps_that_cannot_be_padded_before_are_refused(first, second):
    assert isinstance(algebra.pre_pad(first, second), Refused)


@pytest.mark.parametrize("stride", [1, 2])
def test_batch_norm_before_a_padded_convolution(stride):
    """Exact by a bias map, and by padding the norm's input with -shift / scale; not by folding alone."""
    module, one = pair_of(form(2, pad=1, stride=stride, groups=2), 4, 6)
    norm = torch.nn.BatchNorm2d(4).double().eval().requires_grad_(False)
    for values in (norm.running_mean, norm.weight, norm.bias):
        values.copy_(normal(4, seed=len(repr(values))))
    scale, shift = algebra.norm_scale(norm)
    x, size = normal(2, 4, 8, 7), (8, 7)
    wanted, as_map = module(norm(x)), algebra.line(scale, shift, 2)
    assert error(wanted, algebra.scale_inputs(one, scale, shift)(x)) > 1e-3
    merged = algebra.merge(as_map, one, size, algebra.Policy.BIAS_MAP)
    assert error(wanted, merged(x)) < TOLERANCE
    padded = algebra.pre_pad(as_map, one)
    assert error(-shift / scale, padded.constants) < TOLERANCE
    assert error(wanted, padded(x)) < TOLERANCE


def test_norm_that_drops_a_channel_has_no_constants():
    _, one = pair_of(form(1, pad=1), 2, 2)
    dropped = algebra.line(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0]), 1)
    assert isinstance(algebra.pre_pad(dropped, one), Refused)
