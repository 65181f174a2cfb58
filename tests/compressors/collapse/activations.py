"""Every kind of activation, with settings that show mistakes, and integrals over a Gaussian by brute force."""

import numpy as np
import torch
from torch import nn

PIECEWISE = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky_relu": nn.LeakyReLU(0.07),
    "prelu": nn.PReLU(1, 0.3),
    "hardtanh": nn.Hardtanh(-0.5, 1.7),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardswish": nn.Hardswish(),
}
CLOSED = PIECEWISE | {
    "elu": nn.ELU(1.4),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.6),
    "gelu": nn.GELU(),
}
SMOOTH = {
    "gelu-tanh": nn.GELU("tanh"),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softplus": nn.Softplus(2.0),
    "mish": nn.Mish(),
}
ALL = CLOSED | SMOOTH
_KINKS = (-3.0, -0.5, 0.0, 1.7, 3.0, 6.0)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)


def density(mean: float, std: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns points and weights of a composite Gauss-Legendre rule, split at every kink."""
    # Panels are at most 0.25 wide in z, so that what the activation does near zero is resolved at any width.
    panels = int(min(max(120, 20 * std / 0.25), 8000))
    edges = np.linspace(mean - 10 * std, mean + 10 * std, panels + 1)
    edges = np.unique(np.concatenate([edges, [k for k in _KINKS if abs(k - mean) < 10 * std]]))
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    points = (middle[:, None] + half[:, None] * _NODES).ravel()
    weights = (half[:, None] * _WEIGHTS).ravel() * np.exp(-(((points - mean) / std) ** 2) / 2)
    return torch.from_numpy(points), torch.from_numpy(weights / (std * np.sqrt(2 * np.pi)))


def output(activation: nn.Module, z: torch.Tensor) -> torch.Tensor:
    """Returns the activation's value in float64."""
    from copy import deepcopy

    with torch.no_grad():
        return deepcopy(activation).double()(z)
