"""The line that takes an activation's place: y = slope * x + intercept, per channel or for all channels alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class Line:
    """What to put in the place of one activation call.

    Attributes:
        slope: float64, shape (channels,), or (1,) for all channels alike.
        intercept: float64, same shape.
        axis: The tensor's dimension that `slope` runs along: counted from the front (1 for (batch, channels,
            positions...)), or -1 for the last one (tokens, plain features).
        error: Sum of squared differences from the activation, relative to its sum of squares: expected (Gaussian) or
            measured (fitted); None where nobody knows.
        source: How it was found, e.g. "identity", "gaussian: batch-norm" or "fitted".
    """

    slope: torch.Tensor
    intercept: torch.Tensor
    axis: int
    error: float | None = None
    source: str = ""

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing, exactly."""
        return bool((self.slope == 1).all()) and bool((self.intercept == 0).all())


def identity_line(error: float | None = None) -> Line:
    """Returns slope 1 and intercept 0, which is what the papers put in an activation's place."""
    one = torch.ones(1, dtype=torch.float64)
    return Line(one, torch.zeros_like(one), -1, error, "identity")


@final
class ChannelLine(nn.Module):
    """y = slope * x + intercept along one dimension of x; any sizes elsewhere, any rank that has that dimension.

    Args:
        line: Where the values come from; they become parameters.
        dtype: Type of the parameters.
    """

    slope: nn.Parameter
    intercept: nn.Parameter

    def __init__(self, line: Line, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.axis = line.axis
        self.slope = nn.Parameter(line.slope.detach().to(dtype, copy=True))
        self.intercept = nn.Parameter(line.intercept.detach().to(dtype, copy=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the line's value, same shape as `x`."""
        trailing = 0 if self.axis == -1 or self.slope.numel() == 1 else x.dim() - self.axis - 1
        shape = (-1, *(1,) * trailing)  # (channels, 1, ...): broadcast from the right
        return x * self.slope.reshape(shape) + self.intercept.reshape(shape)

    def extra_repr(self) -> str:
        """Returns channels and axis for printing."""
        return f"channels={self.slope.numel()}, axis={self.axis}"
