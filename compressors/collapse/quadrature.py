"""Smooth activations of a Gaussian, numerically.

The trapezoidal rule over u = (z - mu) / sigma in [-9, 9]: for an integrand that is analytic in a strip of half-width d
around the real line and falls off like a Gaussian, its error falls like exp(-2 pi d / h) (Trefethen and Weideman, "The
exponentially convergent trapezoidal rule", SIAM Review 56, 2014). Gauss-Hermite nodes, which do the same for narrow
Gaussians, do badly for wide ones, where the activation looks like a kink. In z, all our activations are analytic
within 1.5 / sharpness of the real line (sharpness: beta of a Softplus, otherwise 1), so d = 1.5 / (sigma * sharpness),
and the step shrinks with it. Checked: 1e-11 relative to max(1, |mu|, sigma) up to sigma * sharpness = 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

_REACH = 9.0
_STEPS = 48
_FINEST = 1 << 13
_CHUNK = 1 << 21
_NARROW = 1e-5


def standard_normal(width: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns nodes and weights such that sum(weights * f(nodes)) is E[f(u)] for u ~ N(0, 1); float64.

    Args:
        width: sigma * sharpness of the activation that is to be integrated; more nodes for a larger one.
    """
    steps = min(_FINEST, _STEPS * math.ceil(max(1.0, width / 4)))
    u = torch.linspace(-_REACH, _REACH, 2 * int(_REACH * steps) + 1, dtype=torch.float64)
    weights = torch.exp(-u * u / 2)
    return u, weights / weights.sum()


def integrate(
    activation: nn.Module, mean: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns E[s(z)], Cov(z, s(z)) / std^2 and Var[s(z)] for z ~ N(mean, std^2); float64, elementwise.

    Args:
        activation: A module that works elementwise, without weights.
        mean: Any shape.
        std: Same shape, >= 0.
    """
    sharpness = float(activation.beta) if isinstance(activation, nn.Softplus) else 1.0
    u, weights = standard_normal(float(std.max()) * sharpness if std.numel() else 1.0)
    u, weights, count = u.to(mean.device), weights.to(mean.device), len(u)
    size = max(1, _CHUNK // count)
    flat, widths = mean.reshape(-1), std.reshape(-1)
    parts = [
        _integrate_some(activation, u, weights, flat[at : at + size], widths[at : at + size])
        for at in range(0, max(len(flat), 1), size)
    ]
    value, slope, variance = (torch.cat(column).reshape(mean.shape) for column in zip(*parts, strict=True))
    return value, slope, variance


def _integrate_some(
    activation: Callable[[torch.Tensor], torch.Tensor],
    u: torch.Tensor,
    weights: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Does it for a vector of Gaussians."""
    with torch.no_grad():
        centre = activation(mean)
        rise = activation(mean[:, None] + std[:, None] * u) - centre[:, None]  # (gaussians, points)
        offset = rise @ weights
        variance = (rise - offset[:, None]) ** 2 @ weights
        # The slope of a very narrow Gaussian would be 0 / 0; that of a slightly wider one differs by sigma^2.
        narrow = std.clamp_min(_NARROW)
        slope = (activation(mean[:, None] + narrow[:, None] * u) - centre[:, None]) @ (weights * u) / narrow
    return centre + offset, slope, variance
