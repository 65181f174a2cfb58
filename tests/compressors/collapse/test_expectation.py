import math

import pytest
import torch
from torch import nn

from compressors.collapse import expect, gaussian_line
from tests.compressors.collapse.activations import ALL, CLOSED, SMOOTH, density, output

GRID = [(0.0, 1.0), (0.7, 0.3), (-1.3, 2.0), (4.0, 2.0), (-6.0, 1.5), (2.9, 0.05), (0.0, 12.0), (-30.0, 4.0)]


def brute(activation, mean, std):
    z, weights = density(mean, std)
    s = output(activation, z)
    value = (weights * s).sum()
    slope = (weights * (z - mean) * (s - value)).sum() / std**2
    return value, slope, (weights * (s - value) ** 2).sum()


def column(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", ALL)
def test_agrees_with_integration_by_brute_force(name):
    means, stds = (column(values) for values in zip(*GRID, strict=True))
    got = expect(ALL[name], means, stds)
    for index, (mean, std) in enumerate(GRID):
        value, slope, variance = brute(ALL[name], mean, std)
        scale = max(1.0, abs(mean), std)
        assert abs(got.mean[index] - value) < 1e-11 * scale
        assert abs(got.slope[index] - slope) < 1e-11 * scale / std
        # torch's own softplus is cut off at z * beta = 20, which leaves a step of 1e-9.
        assert abs(got.variance[index] - variance) < (1e-8 if name == "softplus" else 1e-11) * scale**2


@pytest.mark.parametrize("name", SMOOTH)
def test_quadrature_holds_for_wide_gaussians(name):
    for mean, std in [(0.0, 100.0 / (2 if name == "softplus" else 1)), (17.0, 40.0)]:
        got = expect(SMOOTH[name], column([mean]), column([std]))
        value, slope, variance = brute(SMOOTH[name], mean, std)
        assert abs(float(got.mean) - value) < 1e-11 * std
        assert abs(float(got.slope) - slope) < 1e-11
        assert abs(float(got.variance) - variance) < 1e-9 * std


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("mean", "std"), [(0.4, 1.1), (-2.0, 0.8)])
def test_no_other_line_has_a_smaller_expected_error(name, mean, std):
    line = gaussian_line(ALL[name], column([mean]), column([std]), 1)
    z, weights = density(mean, std)
    s = output(ALL[name], z)

    def error(slope, intercept):
        return float((weights * (s - slope * z - intercept) ** 2).sum())

    least = error(line.slope, line.intercept)
    assert least / float((weights * s**2).sum()) == pytest.approx(line.error, rel=1e-6, abs=1e-9)
    for angle in range(8):
        off = 1e-3 * math.cos(angle * math.pi / 4), 1e-3 * math.sin(angle * math.pi / 4)
        assert error(line.slope + off[0], line.intercept + off[1]) > least


def test_relu_of_a_standard_normal():
    line = gaussian_line(nn.ReLU(), column([0.0]), column([1.0]), 1)
    density_at_zero = 1 / math.sqrt(2 * math.pi)
    assert float(line.slope) == 0.5
    assert float(line.intercept) == pytest.approx(density_at_zero, abs=1e-15)
    assert line.error == pytest.approx((0.25 - density_at_zero**2) / 0.5, abs=1e-14)


def test_relu_costs_of_linearising_and_deleting():
    # With t = mean / std: E[min(z, 0)^2] and E[max(z, 0)^2]; figures computed independently.
    means, stds = column([0.5 * 2, -1.0]), column([0.5, 1.0])
    found = expect(nn.ReLU(), means, stds)
    power = found.variance + found.mean**2
    total = means**2 + stds**2
    torch.testing.assert_close(total - power, column([0.0014421817, 1.9246602167]), atol=1e-9, rtol=0)
    torch.testing.assert_close(power, column([1.2485578183, 0.0753397833]), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_a_distribution_without_width_gives_value_and_derivative(name):
    means = column([-4.1, -0.2, 0.3, 2.2, 7.0])
    got = expect(ALL[name], means, torch.zeros_like(means))
    z = means.clone().requires_grad_()
    ALL[name].double()(z).sum().backward()
    ALL[name].float()
    assert z.grad is not None
    torch.testing.assert_close(got.mean, output(ALL[name], means), atol=1e-12, rtol=1e-12)
    # torch rounds CELU's 1 / alpha to float32 in its derivative.
    torch.testing.assert_close(got.slope, z.grad, atol=1e-7, rtol=0)
    assert float(got.variance.abs().max()) < 1e-12


def test_a_kink_without_width_counts_half_of_each_side():
    got = expect(nn.LeakyReLU(0.2), column([0.0]), column([0.0]))
    assert float(got.slope) == pytest.approx(0.6)
    assert float(got.mean) == 0


@pytest.mark.parametrize("name", CLOSED)
def test_far_from_zero_no_digits_are_lost(name):
    got = expect(CLOSED[name], column([-1e6, 1e6]), column([1.0, 1.0]))
    z = column([-1e6, 1e6])
    torch.testing.assert_close(got.mean, output(CLOSED[name], z), atol=1e-6, rtol=1e-12)
    assert bool(torch.isfinite(got.slope).all())
    torch.testing.assert_close(got.variance, got.slope**2, atol=1e-4, rtol=1e-4)


def test_prelu_has_one_weight_per_channel():
    prelu = nn.PReLU(3)
    with torch.no_grad():
        prelu.weight.copy_(torch.tensor([0.0, 0.5, 1.0]))
    got = expect(prelu, torch.zeros(3), torch.ones(3))
    torch.testing.assert_close(got.slope, column([0.5, 0.75, 1.0]))
    maps = expect(prelu, torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    assert maps.slope.shape == (1, 3, 1, 1)
    torch.testing.assert_close(maps.slope.flatten(), got.slope)


def test_the_line_of_a_linear_stretch_is_exact():
    line = gaussian_line(nn.PReLU(1, 1.0), column([3.0, -2.0]), column([1.0, 5.0]), 1)
    torch.testing.assert_close(line.slope, column([1.0, 1.0]))
    assert float(line.intercept.abs().max()) < 1e-14
    assert line.error < 1e-15
