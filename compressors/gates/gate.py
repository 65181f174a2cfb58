"""The gate: between an activation s and a line, for one call of the activation.

    y = a (slope x + intercept) + (1 - a) s(x)

a = 0 is the activation, exactly; a = 1 is the line. With the identity and a ReLU this is a PReLU of negative slope a:
for x >= 0 both sides are x, for x < 0 both are a x. So Layer Folding's mix and LayerCollapse's PReLU are one and the
same; they differ in start, penalty, constraint and decision.
"""

from __future__ import annotations

from typing import final

import torch
from torch import nn

from compressors.channel_line import ChannelLine, Line, identity_line


@final
class Gate(nn.Module):
    """One activation call on its way to a line.

    Args:
        activation: s; becomes a part of the gate.
        target: Module path that the call had.
        start: a, in [0, 1].
        line: What a = 1 gives; the identity by default, which has no parameters of its own.
        dtype: Type of the parameters.
    """

    amount: nn.Parameter

    def __init__(
        self,
        activation: nn.Module,
        target: str,
        start: float = 0.0,
        line: Line | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.target = target
        # Without dimensions, so that it does not raise the type of what it is multiplied with.
        self.amount = nn.Parameter(torch.tensor(start, dtype=dtype))
        self.line = None if line is None or line.is_identity else ChannelLine(line, dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the mix, same shape as `x`."""
        straight = x if self.line is None else self.line(x)
        mixed: torch.Tensor = self.amount * straight + (1 - self.amount) * self.activation(x)
        return mixed

    def as_line(self) -> Line:
        """Returns the line, as it is now."""
        if self.line is None:
            return identity_line()
        slope, intercept = (value.detach().double().cpu() for value in (self.line.slope, self.line.intercept))
        return Line(slope, intercept, self.line.axis, None, "gate")

    def extra_repr(self) -> str:
        """Returns the path that the call had, for printing."""
        return f"target={self.target!r}"
