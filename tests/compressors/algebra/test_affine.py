from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

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
)


@quick
@given(data=st.data(), axes=st.integers(1, 3), circular=st.booleans())
def test_map_is_the_padded_convolution(data, axes, circular):
    shape = replace(data.draw(forms(axes)), circular=circular)
    module, one = pair_of(shape, 4, 8)
    size = (7, 6, 5)[:axes]
    assume(fits([one], size))
    x = normal(2, 4, *size)
    assert error(module(x), one(x)) < TOLERANCE
    assert error(module(x), algebra.to_module(one, torch.float64)(x)) < TOLERANCE
    assert one.output_size(size) == tuple(module(x).shape[2:])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(6, 4),
        nn.Linear(6, 4, bias=False),
        nn.Conv1d(6, 4, 3, 2, 1),
        nn.Conv2d(6, 4, (3, 5), (1, 2), (1, 0), (2, 1), groups=2, bias=False),
        nn.Conv2d(6, 4, 4, padding="same"),
        nn.Conv2d(6, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(6, 4, (3, 5), padding="same", padding_mode="circular"),
        nn.Conv3d(6, 4, 3, padding="valid"),
    ],
    ids=repr,
)
def test_module_to_map_and_back(module):
    module = module.double()
    axes = 0 if isinstance(module, nn.Linear) else module.weight.dim() - 2
    x = normal(2, 6, *(9,) * axes)
    value = algebra.of_module(module)
    assert error(module(x), value(x)) < TOLERANCE
    assert error(module(x), algebra.to_module(value, torch.float64)(x)) < TOLERANCE


@pytest.mark.parametrize("module", [nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")], ids=repr)
def test_module_that_is_no_map_is_refused(module):
    with pytest.raises(ValueError, match="no zero-padded or circular"):
        algebra.of_module(module)


@pytest.mark.parametrize("axes", [0, 1, 2, 3])
def test_identity(axes):
    x = normal(2, 4, *(3,) * axes)
    assert torch.equal(x, algebra.identity(4, axes)(x))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_regrouping_keeps_the_function(groups):
    _, one = pair_of(form(2, groups=4), 8, 4)
    x = normal(1, 8, 5, 5)
    dense = algebra.regroup(one, groups)
    assert dense.groups == groups
    assert error(one(x), dense(x)) < TOLERANCE


def test_regrouping_to_a_number_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="groups"):
        algebra.regroup(pair_of(form(1, groups=2), 4, 4)[1], 4)


def test_constant_input_is_multiplied_by_the_tap_sum():
    _, one = pair_of(form(2, groups=2), 4, 6)
    values = normal(4)
    constant = values.reshape(1, 4, 1, 1).expand(1, 4, 3, 3)
    assert error(one(constant).flatten(), one.tap_sum() @ values + one.bias) < TOLERANCE


@quick
@given(one=forms(2), two=forms(2, pads=(0, 0)))
def test_a_merge_in_float32_stays_within_the_rounding_bound(one, two):
    """The merge is done in float64 and rounded once, so it is off by its own rounding only."""
    maps = [map_of(module_of(shape, 4, 4, seed), shape) for seed, shape in enumerate((one, two))]
    assume(fits(maps, (12, 11)))
    x = normal(2, 4, 12, 11)
    exact, merged = maps[1](maps[0](x)), algebra.compose(*maps)
    rounded = algebra.to_module(merged, torch.float32)(x.float()).detach().double()
    assert bool(((rounded - exact).abs() <= algebra.rounding_bound(merged, x, torch.float32)).all())


def test_rounding_bound_of_a_linear_counts_its_products():
    one = algebra.identity(5, 0)
    bound = algebra.rounding_bound(one, torch.ones(1, 5, dtype=torch.float64), torch.float32)
    assert float(bound.max()) == pytest.approx(8 * 2**-24, rel=1e-5)
