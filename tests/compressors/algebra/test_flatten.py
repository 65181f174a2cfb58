from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from compressors import algebra
from tests.compressors.algebra.maps import TOLERANCE, error, fits, form, forms, normal, pair_of, quick


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs).double().requires_grad_(False)


@quick
@given(data=st.data(), axes=st.integers(1, 3), size=st.integers(4, 7), circular=st.booleans())
def test_map_then_flatten_then_linear_is_one_linear(data, axes, size, circular):
    shape, sizes = data.draw(forms(axes, pads=(0 if circular else -1, 3))), (size, size + 1, size)[:axes]
    shape = replace(shape, circular=circular)
    module, one = pair_of(shape, 4, 4)
    assume(fits([one], sizes))
    x = normal(3, 4, *sizes)
    features = module(x).flatten(1)
    head = linear(features.shape[1], 5)
    whole = algebra.flatten_through(one, algebra.of_module(head), sizes)
    assert error(head(features), whole(x.flatten(1))) < TOLERANCE


@pytest.mark.parametrize("size", [(5,), (3, 4), (2, 3, 2)])
def test_flatten_then_linear_is_a_convolution_of_the_whole_grid(size):
    x = normal(2, 3, *size)
    head = linear(x[0].numel(), 6)
    whole = algebra.flatten_as_kernel(algebra.of_module(head), 3, size)
    assert whole.kernel == size
    assert error(head(x.flatten(1)), whole(x).flatten(1)) < TOLERANCE


def test_map_composes_with_the_flattening_kernel():
    module, one = pair_of(form(2, stride=2), 3, 4)
    x = normal(2, 3, 9, 9)
    head = linear(4 * 16, 5)
    whole = algebra.compose(one, algebra.flatten_as_kernel(algebra.of_module(head), 4, (4, 4)))
    assert error(head(module(x).flatten(1)), whole(x).flatten(1)) < TOLERANCE


def test_linear_of_another_size_is_refused():
    with pytest.raises(ValueError, match="cannot read"):
        algebra.flatten_as_kernel(algebra.of_module(linear(10, 2)), 3, (2, 2))


def test_linear_commutes_with_the_mean_over_the_grid():
    head, x = linear(4, 3), normal(2, 4, 5, 6)
    pointwise = algebra.as_pointwise(algebra.of_module(head), 2)
    assert error(head(x.mean((2, 3))), pointwise(x).mean((2, 3))) < TOLERANCE


def test_pointwise_before_the_mean_joins_the_head():
    module, one = pair_of(form(2, kernel=1, groups=2), 4, 6)
    head, x = linear(6, 3), normal(2, 4, 5, 6)
    whole = algebra.compose(algebra.as_linear(one), algebra.of_module(head))
    assert error(head(module(x).mean((2, 3))), whole(x.mean((2, 3)))) < TOLERANCE


@pytest.mark.parametrize("shape", [form(1), form(1, kernel=1, stride=2), form(1, kernel=1, pad=1)])
def test_only_a_plain_pointwise_is_a_linear(shape):
    with pytest.raises(ValueError, match="1x1"):
        algebra.as_linear(pair_of(shape, 2, 2)[1])


def test_only_a_linear_is_a_pointwise():
    with pytest.raises(ValueError, match="no linear"):
        algebra.as_pointwise(algebra.identity(2, 1), 2)
