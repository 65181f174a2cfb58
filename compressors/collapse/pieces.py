"""Piecewise polynomial activations of a Gaussian, exactly.

With u = (z - mu) / sigma, a piece q(u) on (a, b) contributes sum_k q_k M_k, where M_k is the integral of u^k phi(u)
over (a, b): M_0 = Phi(b) - Phi(a), M_1 = phi(a) - phi(b), M_k = (k - 1) M_{k-2} + a^{k-1} phi(a) - b^{k-1} phi(b).
Everything is expanded around mu, so that a small sigma costs no digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.special import ndtr

Number = float | torch.Tensor


@dataclass(frozen=True, eq=False)
class Piece:
    """c0 + c1 z + c2 z^2 for low < z < high; neighbours meet, so that the whole is continuous."""

    low: float
    high: float
    c0: Number = 0.0
    c1: Number = 0.0
    c2: Number = 0.0


def pieces_of(activation: nn.Module, like: torch.Tensor) -> tuple[Piece, ...] | None:
    """Returns the activation's pieces, None where it is no piecewise polynomial.

    Args:
        activation: An activation module.
        like: The tensor of means; PReLU's weights lie along its dimension 1, or 0 of a vector.
    """
    inf = math.inf
    leak = _leak(activation, like)
    if leak is not None:
        return Piece(-inf, 0.0, c1=leak), Piece(0.0, inf, c1=1.0)
    match activation:
        case nn.Hardtanh():  # ReLU6 is one, too
            low, high = float(activation.min_val), float(activation.max_val)
            return Piece(-inf, low, low), Piece(low, high, c1=1.0), Piece(high, inf, high)
        case nn.Hardsigmoid():
            return Piece(-inf, -3.0), Piece(-3.0, 3.0, 0.5, 1 / 6), Piece(3.0, inf, 1.0)
        case nn.Hardswish():
            return Piece(-inf, -3.0), Piece(-3.0, 3.0, 0.0, 0.5, 1 / 6), Piece(3.0, inf, c1=1.0)
        case _:
            return None


def _leak(activation: nn.Module, like: torch.Tensor) -> Number | None:
    """Returns the slope below zero of a rectifier."""
    match activation:
        case nn.ReLU():
            return 0.0
        case nn.LeakyReLU():
            return float(activation.negative_slope)
        case nn.PReLU():
            weight = activation.weight.detach().to(like)
            return weight.reshape(1, -1, *(1,) * (like.dim() - 2)) if like.dim() > 1 else weight
        case _:
            return None


def integrate_pieces(
    pieces: Sequence[Piece], mean: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns E[s(z)], E[s'(z)] and Var[s(z)] for z ~ N(mean, std^2); float64, elementwise.

    Args:
        pieces: They cover the real line.
        mean: Any shape.
        std: Same shape, >= 0.
    """
    parts = [(_around(piece, mean, std), _truncated(piece, mean, std)) for piece in pieces]
    value = torch.stack([q0 * m[0] + q1 * m[1] + q2 * m[2] for (q0, q1, q2), m in parts]).sum(0)
    slope = torch.stack(
        [
            (piece.c1 + 2 * piece.c2 * mean) * m[0] + 2 * piece.c2 * std * m[1]
            for piece, (_, m) in zip(pieces, parts, strict=True)
        ]
    ).sum(0)
    variance = torch.stack([_square(q0 - value, q1, q2, m) for (q0, q1, q2), m in parts]).sum(0)
    return value, slope, variance.clamp_min(0)


def _around(piece: Piece, mean: torch.Tensor, std: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the coefficients of the piece as a polynomial in u."""
    zero = torch.zeros_like(mean)
    constant = zero + piece.c0 + piece.c1 * mean + piece.c2 * mean**2
    return constant, (piece.c1 + 2 * piece.c2 * mean) * std, zero + piece.c2 * std**2


def _truncated(piece: Piece, mean: torch.Tensor, std: torch.Tensor) -> list[torch.Tensor]:
    """Returns M_0 to M_4; a bound at the mean of a distribution without width has half of it on either side."""
    a, b = (torch.nan_to_num((x - mean) / std, nan=0.0, posinf=math.inf, neginf=-math.inf) for x in _bounds(piece))
    upper = a > 0
    moments = [torch.where(upper, ndtr(-a) - ndtr(-b), ndtr(b) - ndtr(a)), _edge(a, 0) - _edge(b, 0)]
    for k in (2, 3, 4):
        moments.append((k - 1) * moments[k - 2] + _edge(a, k - 1) - _edge(b, k - 1))
    return moments


def _bounds(piece: Piece) -> tuple[float, float]:
    return piece.low, piece.high


def _edge(t: torch.Tensor, power: int) -> torch.Tensor:
    """Returns t^power phi(t), 0 at infinity."""
    return torch.nan_to_num(t**power * torch.exp(-t * t / 2), nan=0.0) / math.sqrt(2 * math.pi)


def _square(q0: torch.Tensor, q1: torch.Tensor, q2: torch.Tensor, m: list[torch.Tensor]) -> torch.Tensor:
    """Returns the integral of (q0 + q1 u + q2 u^2)^2."""
    return q0**2 * m[0] + 2 * q0 * q1 * m[1] + (q1**2 + 2 * q0 * q2) * m[2] + 2 * q1 * q2 * m[3] + q2**2 * m[4]
