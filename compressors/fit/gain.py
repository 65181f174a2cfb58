"""Gain and shift of a group norm behind a merged operator, by least squares.

With n what the norm makes of its input, gain 1 and shift 0, and y what the original has at its place,

    gain = Cov(n, y) / Var(n),    shift = mean(y) - gain * mean(n)

per channel, over samples and positions. Float64, streamed over batches; nothing else is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from compressors.collapse.statistics import SiteStatistics, measure

if TYPE_CHECKING:
    from collections.abc import Iterable


def fit_gain(norm: nn.GroupNorm, pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Puts the best gain and shift into a norm, in place, and returns the error that is left.

    Args:
        norm: With weights.
        pairs: Its inputs and what it should make of them, each (n, channels, positions ...); at least one pair.

    Returns:
        Squared error relative to the wanted tensors' variance: 0 is perfect, 1 no better than a constant.
    """
    seen: SiteStatistics | None = None
    for given, wanted in pairs:
        plain = F.group_norm(given, norm.num_groups, eps=norm.eps)
        here = measure(plain.transpose(0, 1).flatten(1), wanted.transpose(0, 1).flatten(1), axis=1)
        seen = here if seen is None else seen.merged(here)
    assert seen is not None
    line = seen.line()
    with torch.no_grad():
        norm.weight.copy_(line.slope)
        norm.bias.copy_(line.intercept)
    spread = float(seen.var_out.sum())
    return float(seen.squared_error(line.slope, line.intercept).sum()) / spread if spread > 0 else 0.0
