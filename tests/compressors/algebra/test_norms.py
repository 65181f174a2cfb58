import pytest
import torch
from hypothesis import assume, given
from torch import nn

from compressors import algebra
from compressors.algebra import Exactness, Refused
from tests.compressors.algebra.maps import TOLERANCE, error, fits, form, forms, normal, pair_of, quick


def batch_norm(kind, channels, seed=0, affine=True):
    generator = torch.Generator().manual_seed(seed)
    module = kind(channels, affine=affine).double().eval().requires_grad_(False)
    module.running_mean.normal_(generator=generator)
    module.running_var.uniform_(0.5, 2, generator=generator)
    for values in module.parameters():
        values.normal_(generator=generator)
    return module


@quick
@given(shape=forms(2))
def test_norm_behind_any_convolution(shape):
    module, one = pair_of(shape, 4, 8)
    assume(fits([one], (8, 7)))
    norm, x = batch_norm(nn.BatchNorm2d, 8), normal(2, 4, 8, 7)
    folded = algebra.scale_outputs(one, *algebra.norm_scale(norm))
    assert error(norm(module(x)), folded(x)) < TOLERANCE


@quick
@given(shape=forms(2, pads=(0, 0)))
def test_norm_before_any_convolution_without_padding(shape):
    module, one = pair_of(shape, 4, 8)
    assume(fits([one], (8, 7)))
    norm, x = batch_norm(nn.BatchNorm2d, 4), normal(2, 4, 8, 7)
    folded = algebra.scale_inputs(one, *algebra.norm_scale(norm))
    assert error(module(norm(x)), folded(x)) < TOLERANCE


def test_scale_alone_folds_into_a_padded_convolution():
    module, one = pair_of(form(2, pad=1), 4, 8)
    scale, x = normal(4), normal(1, 4, 6, 6)
    folded = algebra.scale_inputs(one, scale, torch.zeros(4, dtype=torch.float64))
    assert error(module(x * scale[:, None, None]), folded(x)) < TOLERANCE


def test_norm_without_weights():
    norm, x = batch_norm(nn.BatchNorm1d, 4, affine=False), normal(3, 4, 5)
    assert error(norm(x), algebra.line(*algebra.norm_scale(norm), 1)(x)) < TOLERANCE


@pytest.mark.parametrize("before", [False, True])
def test_norm_beside_a_linear(before):
    linear, norm = nn.Linear(4, 4).double(), batch_norm(nn.BatchNorm1d, 4)
    x, one = normal(7, 4), algebra.of_module(linear)
    scale, shift = algebra.norm_scale(norm)
    folded = algebra.scale_inputs(one, scale, shift) if before else algebra.scale_outputs(one, scale, shift)
    assert error(linear(norm(x)) if before else norm(linear(x)), folded(x)) < TOLERANCE


def test_norm_between_two_linears():
    """W = W2 D W1, b = W2 (D (b1 - mean) + beta) + b2 (LayerCollapse, 2023)."""
    one, norm, two = nn.Linear(5, 8).double(), batch_norm(nn.BatchNorm1d, 8), nn.Linear(8, 3).double()
    first = algebra.scale_outputs(algebra.of_module(one), *algebra.norm_scale(norm))
    x = normal(6, 5)
    assert error(two(norm(one(x))), algebra.compose(first, algebra.of_module(two))(x)) < TOLERANCE


def test_norm_without_statistics_is_refused():
    with pytest.raises(ValueError, match="running statistics"):
        algebra.norm_scale(nn.BatchNorm2d(3, track_running_stats=False))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
@pytest.mark.parametrize("groups", [1, 2])
def test_norm_behind_a_transposed_convolution(kind, groups, bias):
    axes = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d).index(kind) + 1
    module = kind(4, 6, 3, stride=2, padding=1, groups=groups, bias=bias).double().requires_grad_(False)
    norm = batch_norm((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1], 6)
    x = normal(2, 4, *(4,) * axes)
    wanted = norm(module(x))
    weight, offset = algebra.scale_transposed_outputs(module.weight, module.bias, groups, *algebra.norm_scale(norm))
    folded = kind(4, 6, 3, stride=2, padding=1, groups=groups).double().requires_grad_(False)
    folded.weight.copy_(weight)
    folded.bias.copy_(offset)
    assert error(wanted, folded(x)) < TOLERANCE


def test_scale_before_a_transposed_convolution():
    module = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2).double().requires_grad_(False)
    scale, x = normal(4), normal(1, 4, 5, 5)
    wanted = module(x * scale[:, None, None])
    module.weight.copy_(algebra.scale_transposed_inputs(module.weight, scale, torch.zeros(4)))
    assert error(wanted, module(x)) < TOLERANCE


def test_shift_before_a_transposed_convolution_is_refused():
    assert isinstance(algebra.scale_transposed_inputs(torch.ones(2, 2, 3), torch.ones(2), torch.ones(2)), Refused)


@pytest.mark.parametrize("pad", [0, 1])
def test_line_in_place_of_an_activation_folds_into_what_precedes(pad):
    """The intercept acts like the first map's bias: behind padding it needs a bias map."""
    (one_module, one), (two_module, two) = pair_of(form(2, kernel=1), 3, 4, 1), pair_of(form(2, pad=pad), 4, 5, 2)
    slope, intercept = normal(4, seed=3), normal(4, seed=4)
    x = normal(2, 3, 6, 6)
    wanted = two_module(one_module(x) * slope[:, None, None] + intercept[:, None, None])
    first = algebra.scale_outputs(one, slope, intercept)
    merged = algebra.merge(first, two, (6, 6), algebra.Policy.BIAS_MAP)
    assert merged.exactness is (Exactness.BIAS_MAP if pad else Exactness.CONSTANT)
    assert error(wanted, merged(x)) < TOLERANCE
    assert (error(wanted, algebra.compose(one, algebra.scale_inputs(two, slope, intercept))(x)) < TOLERANCE) == (
        not pad
    )


@pytest.mark.parametrize("axes", [0, 1, 2])
def test_line_as_a_map(axes):
    scale, shift = normal(4, seed=1), normal(4, seed=2)
    x = normal(2, 4, *(5,) * axes)
    spread = (4, *(1,) * axes)
    assert error(x * scale.reshape(spread) + shift.reshape(spread), algebra.line(scale, shift, axes)(x)) < TOLERANCE


@pytest.mark.parametrize("plain", [False, True])
def test_layer_norm_scale_folds_into_the_next_linear(plain):
    norm = nn.LayerNorm(6, elementwise_affine=not plain).double().requires_grad_(False)
    if not plain:
        norm.weight.copy_(normal(6, seed=1))
        norm.bias.copy_(normal(6, seed=2))
    linear, x = nn.Linear(6, 4).double(), normal(2, 5, 6)
    bare = nn.functional.layer_norm(x, (6,), eps=norm.eps)
    folded = algebra.scale_inputs(algebra.of_module(linear), *algebra.layer_norm_scale(norm))
    assert error(linear(norm(x)), folded(bare)) < TOLERANCE


def test_layer_norm_over_several_axes_is_refused():
    with pytest.raises(ValueError, match="axes"):
        algebra.layer_norm_scale(nn.LayerNorm((3, 4)))


def test_centring_of_a_layer_norm_folds_into_the_previous_linear():
    linear, x = nn.Linear(6, 5).double(), normal(3, 6)
    wanted = nn.functional.layer_norm(linear(x), (5,))
    got = nn.functional.rms_norm(algebra.centre_outputs(algebra.of_module(linear))(x), (5,), eps=1e-5)
    assert error(wanted, got) < TOLERANCE


def test_centring_of_a_grouped_convolution():
    module, one = pair_of(form(2, pad=1, groups=2), 4, 6)
    x = normal(1, 4, 5, 5)
    wanted = module(x) - module(x).mean(1, keepdim=True)
    assert error(wanted, algebra.centre_outputs(one)(x)) < TOLERANCE
