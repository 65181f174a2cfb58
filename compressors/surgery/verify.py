"""Numerical proof: two things that should compute the same, compared."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Verification:
    """Outcome of one exact surgery's check in float64.

    Attributes:
        name: What was merged, e.g. `layer1.0.conv1 + layer1.0.bn1`.
        error: Largest absolute difference, relative to the largest absolute value.
        tolerance: What it had to stay below.
    """

    name: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the surgery was exact; NaN is not."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Agreement:
    """How far two networks' outputs lie apart.

    Attributes:
        relative: Largest absolute difference over all outputs, relative to the largest absolute value.
        absolute: Largest absolute difference.
        top1: Fraction of rows of the first output whose largest entry is at the same place.
        samples: Rows compared.
    """

    relative: float
    absolute: float
    top1: float
    samples: int


def relative_error(wanted: torch.Tensor, got: torch.Tensor) -> float:
    """Returns the largest absolute difference relative to the largest absolute value; NaN stays NaN.

    Tensors of other shapes differ without bound.
    """
    if wanted.shape != got.shape:
        return float("inf")
    scale = wanted.double().abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float((wanted.double() - got.double()).abs().max() / scale)


def output_error(wanted: Any, got: Any) -> float:
    """Returns the largest difference between two networks' outputs, each relative to its largest finite value.

    NaN agrees with nothing, not even with NaN: the result is NaN, which is within no tolerance, and so is that of an
    output without any finite entry, which proves nothing. Else equal infinities agree: networks hide classes with them.

    Args:
        wanted: What one network returned: a tensor, or several.
        got: What the other returned.
    """
    pairs = list(zip(_tuple(wanted), _tuple(got), strict=True))
    if any(left.shape != right.shape for left, right in pairs):
        return math.inf
    errors = [_finite_error(left, right) for left, right in pairs]
    return math.nan if any(map(math.isnan, errors)) else max(errors, default=0.0)


def _finite_error(wanted: torch.Tensor, got: torch.Tensor) -> float:
    wanted, got = wanted.double(), got.double()
    if not bool((wanted.isfinite() & got.isfinite()).any()):
        return math.nan if wanted.numel() else 0.0
    same = wanted == got
    scale = wanted.nan_to_num(0, 0, 0).abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float(torch.where(same, 0, wanted - got).abs().max() / scale)


def agreement(a: nn.Module, b: nn.Module, samples: Iterable[tuple[torch.Tensor, ...]]) -> Agreement:
    """Compares two networks on batches of inputs, without gradients.

    Args:
        a: The reference, in eval mode.
        b: What should compute the same.
        samples: Batches; each is the tuple of the networks' inputs, batch first.
    """
    relative = absolute = 0.0
    same = rows = 0
    with torch.no_grad():
        for inputs in samples:
            for index, (left, right) in enumerate(zip(_tuple(a(*inputs)), _tuple(b(*inputs)), strict=True)):
                relative = _worse(relative, relative_error(left, right))
                absolute = _worse(absolute, float((left - right).abs().max()))
                if index == 0:
                    rows += len(left)
                    same += int((left.flatten(1).argmax(1) == right.flatten(1).argmax(1)).sum())
    return Agreement(relative, absolute, same / max(rows, 1), rows)


def _tuple(value: Any) -> tuple[torch.Tensor, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _worse(left: float, right: float) -> float:
    """Returns the larger one; NaN is worst."""
    return right if right != right or right > left else left  # noqa: PLR0124
