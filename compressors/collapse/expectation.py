"""What an activation does to a Gaussian: mean, variance and best line, in closed form wherever there is one.

For z ~ N(mu, sigma^2) the line that minimises E[(s(z) - a z - b)^2] has a = Cov(z, s(z)) / sigma^2, which is E[s'(z)]
(Stein's lemma; Price's theorem), and b = E[s(z)] - a mu. What remains is Var[s(z)] - a^2 sigma^2.

1. Piecewise polynomials (ReLU, ReLU6, LeakyReLU, PReLU, Hardtanh, Hardsigmoid, Hardswish): truncated moments, see
   `compressors.collapse.pieces`.
2. A (exp(z/c) - 1) below zero, B z above (ELU, CELU, SELU): an exponential tilts a Gaussian into another one,
   E[exp(t z); z < 0] = exp(t mu + t^2 sigma^2 / 2) Phi(-mu/sigma - t sigma).
3. z Phi(z) (exact GELU): with k = mu / sqrt(1 + sigma^2), E[z Phi(z)] = mu Phi(k) + sigma^2 phi(k) / sqrt(1 + sigma^2)
   and E[s'] = Phi(k) + mu phi(k) / (1 + sigma^2)^(3/2). Its variance is integrated numerically.
4. Everything else (SiLU, tanh-GELU, Tanh, Sigmoid, Softplus, Mish): see `compressors.collapse.quadrature`.

At sigma = 0 all of them give the limit: s(mu), variance 0 and the derivative, at a kink the mean of both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.special import log_ndtr, ndtr

from compressors.channel_line import Line
from compressors.collapse.pieces import integrate_pieces, pieces_of
from compressors.collapse.quadrature import integrate


@dataclass(frozen=True, eq=False)
class Expectation:
    """An activation s of a Gaussian z; all float64, one shape.

    Attributes:
        mean: E[s(z)].
        slope: Cov(z, s(z)) / Var(z).
        variance: Var[s(z)].
    """

    mean: torch.Tensor
    slope: torch.Tensor
    variance: torch.Tensor


def expect(activation: nn.Module, mean: torch.Tensor, std: torch.Tensor) -> Expectation:
    """Returns mean, best slope and variance of an activation's output for independent Gaussian inputs.

    Args:
        activation: One of the activations in `compressors.modules.activation_kind`.
        mean: Of the inputs; shape (channels,), or any shape with the channels in dimension 1 (matters to PReLU only).
        std: Standard deviation of the inputs, >= 0, same shape.
    """
    mean, std = mean.double(), std.double()
    pieces = pieces_of(activation, mean)
    if pieces is not None:
        return Expectation(*integrate_pieces(pieces, mean, std))
    exponential = _exponential(activation)
    if exponential is not None:
        return _expect_exponential(*exponential, mean, std)
    integral = Expectation(*integrate(activation, mean, std))
    if isinstance(activation, nn.GELU) and activation.approximate == "none":
        return _expect_gelu(mean, std, integral.variance)
    return integral


def gaussian_line(activation: nn.Module, mean: torch.Tensor, std: torch.Tensor, axis: int) -> Line:
    """Returns the line with the smallest expected squared error for inputs N(mean, std^2), per channel.

    Args:
        activation: What it stands for.
        mean: Shape (channels,) or (1,).
        std: Same shape, >= 0.
        axis: As in `Line`.
    """
    found = expect(activation, mean, std)
    intercept = found.mean - found.slope * mean.double()
    left = (found.variance - (found.slope * std.double()) ** 2).clamp_min(0).sum()
    power = (found.variance + found.mean**2).sum()
    return Line(found.slope, intercept, axis, float(left / power) if power > 0 else 0.0, "gaussian")


def _density(t: torch.Tensor) -> torch.Tensor:
    return torch.exp(-t * t / 2) / math.sqrt(2 * math.pi)


def _exponential(activation: nn.Module) -> tuple[float, float, float] | None:
    """Case 2: returns A, c and B."""
    if isinstance(activation, nn.ELU):
        return float(activation.alpha), 1.0, 1.0
    if isinstance(activation, nn.CELU):
        return float(activation.alpha), float(activation.alpha), 1.0
    if isinstance(activation, nn.SELU):
        alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
        return alpha * scale, 1.0, scale
    return None


def _expect_exponential(a: float, c: float, b: float, mean: torch.Tensor, std: torch.Tensor) -> Expectation:
    """Case 2."""
    t = torch.nan_to_num(mean / std, nan=0.0, posinf=math.inf, neginf=-math.inf)
    above, below, density = ndtr(t), ndtr(-t), _density(t)
    once, twice = (
        torch.exp(rate * mean + (rate * std) ** 2 / 2 + log_ndtr(-t - rate * std)) for rate in (1 / c, 2 / c)
    )
    value = a * (once - below) + b * (mean * above + std * density)
    slope = a / c * once + b * above
    square = a * a * (twice - 2 * once + below) + b * b * ((mean**2 + std**2) * above + mean * std * density)
    # Far above zero the difference is lost in rounding; the best line's part of the variance is a lower bound.
    return Expectation(value, slope, torch.maximum(square - value**2, (slope * std) ** 2))


def _expect_gelu(mean: torch.Tensor, std: torch.Tensor, variance: torch.Tensor) -> Expectation:
    """Case 3."""
    width = torch.sqrt(1 + std**2)
    k = mean / width
    value = mean * ndtr(k) + std**2 / width * _density(k)
    return Expectation(value, ndtr(k) + mean * _density(k) / width**3, variance)
