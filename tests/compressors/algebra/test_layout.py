import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from compressors import algebra
from compressors.algebra import Exactness, Refused
from tests.compressors.algebra.maps import TOLERANCE, error, form, normal, pair_of, quick


@quick
@given(pads=st.tuples(*[st.integers(-2, 3)] * 4))
def test_padding_and_cropping(pads):
    left, right, top, bottom = pads
    x = normal(1, 3, 6, 7)
    got = algebra.padding(3, (top, left), (bottom, right))(x)
    assert torch.equal(F.pad(x, pads), got)


def test_more_than_the_input_can_be_cropped_from_one_side():
    assert algebra.padding(1, (-3,), (4,))(normal(1, 1, 2)).tolist() == [[[0, 0, 0]]]


def test_circular_padding():
    x = normal(1, 2, 5)
    assert torch.equal(F.pad(x, (2, 3), mode="circular"), algebra.padding(2, (2,), (3,), circular=True)(x))


def test_padding_before_a_convolution_is_its_own():
    module, one = pair_of(form(2), 3, 4)
    x = normal(1, 3, 6, 6)
    pad = algebra.padding(3, (1, 0), (2, 1))
    assert algebra.exactness(pad, one, (6, 6)) is Exactness.CONSTANT
    assert error(module(F.pad(x, (0, 1, 1, 2))), algebra.compose(pad, one)(x)) < TOLERANCE


@quick
@given(start=st.integers(0, 2), step=st.integers(1, 3), drop=st.integers(0, 2), size=st.integers(6, 10))
def test_slicing_with_a_step(start, step, drop, size):
    x = normal(1, 3, size, size)
    got = algebra.slicing(3, (start, 0), (step, 2), (drop, 0))(x)
    assert torch.equal(x[..., start : size - drop : step, ::2], got)


def test_slicing_then_convolution_is_one_map():
    module, one = pair_of(form(2), 3, 4)
    x = normal(1, 3, 9, 9)
    whole = algebra.compose(algebra.slicing(3, (0, 0), (2, 2)), one)
    assert error(module(x[..., ::2, ::2]), whole(x)) < TOLERANCE


def test_shortcut_that_pads_channels():
    """A ResNet's shortcut without weights: every other position, channels of zeros around."""
    x = normal(1, 4, 8, 8)
    whole = algebra.compose(algebra.slicing(4, (0, 0), (2, 2)), algebra.channel_padding(4, 2, 2, 2))
    assert torch.equal(F.pad(x[..., ::2, ::2], (0, 0, 0, 0, 2, 2)), whole(x))


def test_shortcut_that_pads_channels_joins_its_block():
    module, one = pair_of(form(2, stride=2, pad=1), 4, 8)
    x = normal(1, 4, 8, 8)
    skip = algebra.compose(algebra.slicing(4, (0, 0), (2, 2)), algebra.channel_padding(4, 2, 2, 2))
    wanted = module(x) + F.pad(x[..., ::2, ::2], (0, 0, 0, 0, 2, 2))
    assert error(wanted, algebra.add(one, skip)(x)) < TOLERANCE


@pytest.mark.parametrize("axes", [0, 1, 2])
def test_selection(axes):
    x = normal(1, 4, *(3,) * axes)
    wanted = x[:, [3, 0, 0]] if axes else x[..., [3, 0, 0]]
    assert torch.equal(wanted, algebra.selection(4, [3, 0, 0], axes)(x))


def test_permutation_within_blocks_is_grouped():
    assert algebra.selection(6, [1, 0, 3, 2, 5, 4], 2).groups == 3


def test_selection_of_a_channel_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="channels of 4"):
        algebra.selection(4, [4], 1)


@pytest.mark.parametrize("groups", [2, 3])
def test_shuffle(groups):
    x = normal(1, 6, 4, 4)
    assert torch.equal(nn.ChannelShuffle(groups)(x), algebra.channel_shuffle(6, groups, 2)(x))


def test_uneven_shuffle_is_refused():
    with pytest.raises(ValueError, match="shuffled"):
        algebra.channel_shuffle(5, 2, 2)


def test_upsampling_is_refused():
    assert isinstance(algebra.nearest_upsampling((2, 2)), Refused)
