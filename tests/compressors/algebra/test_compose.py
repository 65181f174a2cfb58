import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from compressors import algebra
from tests.compressors.algebra.maps import (
    TOLERANCE,
    error,
    fits,
    form,
    forms,
    map_of,
    module_of,
    normal,
    pair_of,
    quick,
)  # fmt: skip


def check_pair(one, two, sizes):
    """Composes with nothing padded between, where every composition is exact."""
    modules = module_of(one, 4, 8, 1), module_of(two, 8, 4, 2)
    first, second = map_of(modules[0], one), map_of(modules[1], two)
    assume(fits([first, second], sizes))
    x = normal(2, 4, *sizes)
    whole = algebra.compose(first, second)
    assert whole.output_size(sizes) == tuple(modules[1](modules[0](x)).shape[2:])
    assert error(modules[1](modules[0](x)), whole(x)) < TOLERANCE


@quick
@given(one=forms(1), two=forms(1, pads=(0, 0)), size=st.integers(5, 12))
def test_composition_on_one_axis(one, two, size):
    check_pair(one, two, (size,))


@quick
@given(one=forms(2), two=forms(2, pads=(0, 0)), sizes=st.tuples(st.integers(5, 11), st.integers(5, 11)))
def test_composition_on_two_axes(one, two, sizes):
    check_pair(one, two, sizes)


@quick
@given(one=forms(3, kernels=3), two=forms(3, pads=(0, 0), kernels=2, strides=2), size=st.integers(5, 7))
def test_composition_on_three_axes(one, two, size):
    check_pair(one, two, (size, size + 1, size))


@quick
@given(one=forms(2), two=forms(2), sizes=st.tuples(st.integers(5, 11), st.integers(5, 11)))
def test_output_has_the_size_of_the_pairs(one, two, sizes):
    maps = [map_of(module_of(shape, 4, 4), shape) for shape in (one, two)]
    assume(fits(maps, sizes))
    assert algebra.compose(*maps).output_size(sizes) == maps[1].output_size(maps[0].output_size(sizes))


@quick
@given(one=forms(2), two=forms(2), three=forms(2))
def test_composition_is_associative(one, two, three):
    a, b, c = (map_of(module_of(shape, 4, 4, seed), shape) for seed, shape in enumerate((one, two, three)))
    left, right = algebra.compose(algebra.compose(a, b), c), algebra.compose(a, algebra.compose(b, c))
    assert (left.stride, left.before, left.after, left.groups) == (
        right.stride,
        right.before,
        right.after,
        right.groups,
    )
    assert left.dilation == right.dilation
    assert error(left.weight, right.weight) < TOLERANCE
    assert error(left.bias, right.bias) < TOLERANCE


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_identity_changes_nothing_before_and_after(axes):
    module, one = pair_of(form(axes, pad=1, groups=2, dilation=2), 4, 4)
    x = normal(1, 4, *(7,) * axes)
    for whole in (algebra.compose(algebra.identity(4, axes), one), algebra.compose(one, algebra.identity(4, axes))):
        assert error(module(x), whole(x)) < TOLERANCE
        assert (whole.kernel, whole.groups) == (one.kernel, one.groups)


def test_linears_compose_on_the_last_axis_of_tokens():
    first, second = (algebra.of_module(torch.nn.Linear(*io).double()) for io in ((5, 9), (9, 3)))
    x = normal(2, 7, 5)
    assert error(second(first(x)), algebra.compose(first, second)(x)) < TOLERANCE


@pytest.mark.parametrize(("first", "second", "wanted"), [(12, 12, 12), (4, 2, 2), (3, 4, 1), (2, 2, 2), (4, 6, 2)])
def test_groups_compose_to_their_gcd(first, second, wanted):
    shapes = form(2, groups=first), form(2, groups=second)
    modules = module_of(shapes[0], 12, 12, 1), module_of(shapes[1], 12, 24, 2)
    whole = algebra.compose(*(map_of(m, s) for m, s in zip(modules, shapes, strict=True)))
    x = normal(1, 12, 6, 6)
    assert whole.groups == wanted
    assert error(modules[1](modules[0](x)), whole(x)) < TOLERANCE


def test_depthwise_with_a_multiplier_stays_grouped():
    shapes = form(2, groups=4), form(2, groups=8)
    modules = module_of(shapes[0], 4, 8, 1), module_of(shapes[1], 8, 8, 2)
    whole = algebra.compose(*(map_of(m, s) for m, s in zip(modules, shapes, strict=True)))
    assert whole.groups == 4
    assert error(modules[1](modules[0](normal(1, 4, 6, 6))), whole(normal(1, 4, 6, 6))) < TOLERANCE


def test_empty_chain_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        algebra.compose_chain([])


def test_time_embedding_between_two_convolutions():
    """A term per channel that is added between two maps becomes one behind both."""
    shapes = form(2, pad=1), form(2)
    modules = module_of(shapes[0], 3, 6, 1), module_of(shapes[1], 6, 4, 2)
    first, second = (map_of(m, s) for m, s in zip(modules, shapes, strict=True))
    embed = torch.nn.Linear(5, 6).double().requires_grad_(False)
    x, t = normal(2, 3, 8, 8), normal(2, 5)
    wanted = modules[1](modules[0](x) + embed(t)[..., None, None])
    shift = algebra.compose_shift(algebra.of_module(embed), second)
    assert error(wanted, algebra.compose(first, second)(x) + shift(t)[..., None, None]) < TOLERANCE


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_that_were_merged_are_found_again(groups):
    one = map_of(module_of(form(2, groups=4), 8, 12), form(2, groups=4))
    again = algebra.split_groups(algebra.regroup(one, groups))
    assert again.groups == 4
    assert torch.equal(again.weight, one.weight)


def test_a_dense_map_has_one_group():
    assert algebra.split_groups(map_of(module_of(form(2), 4, 4), form(2))).groups == 1


def test_a_linear_has_one_group():
    assert algebra.split_groups(algebra.identity(4, 0)).groups == 1
