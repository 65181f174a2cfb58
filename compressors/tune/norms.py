"""Batch-norm statistics of a network, estimated anew on data.

A running average with momentum remembers only the last batches, and those of a network that has since changed. After a
cut or an averaging of weights the moments are better taken over many batches of the network as it is (Wu & Johnson,
"Rethinking 'Batch' in BatchNorm", 2021, section 3.1):

    mean = (1/N) sum_i x_i,   var = (1/(N-1)) sum_i (x_i - mean)^2   over all N values of a channel in all batches.

While estimating, every norm normalises with the moments of the batch, so that what later norms see does not depend on
the statistics that are being replaced.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, final

import torch
from torch import nn

from compressors.batches import in_order

if TYPE_CHECKING:
    from compressors.graph import Graph
    from compressors.problem import Samples

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def reestimate(graph: Graph, samples: Samples, batches: int, size: int = 128, seconds: float = math.inf) -> Graph:
    """Returns a copy whose batch norms have the exact moments of their inputs; everything else is as it was.

    Args:
        graph: Not changed. Returned as a copy where it has no batch norms.
        samples: What to take the moments on, without augmentation; targets are not used.
        batches: At most so many, > 0.
        size: Samples per batch. A last one of a single sample is left out: it has no variance.
        seconds: No batch is begun after so long; the first one always is.
    """
    copy = graph.copied()
    norms = [part for part in copy.module.modules() if isinstance(part, _BATCH_NORMS) and part.track_running_stats]
    if not norms:
        return copy
    moments = [_Moments(norm.num_features) for norm in norms]
    hooks = [norm.register_forward_pre_hook(partial(_add, here)) for norm, here in zip(norms, moments, strict=True)]
    for norm in norms:
        norm.train()
    device, end = next(norms[0].buffers()).device, time.monotonic() + seconds
    with torch.no_grad():
        for batch in in_order(samples, size, batches * size):
            if len(batch) > 1:
                copy.module(*(value.to(device) for value in batch.inputs))
            if time.monotonic() >= end:
                break
    for norm, hook, here, old in zip(norms, hooks, moments, _norms(graph), strict=True):
        hook.remove()
        norm.eval()
        # The average that training goes on with counts as before.
        norm.load_state_dict(old.state_dict())
        if here.count > 1:
            norm.running_mean.copy_(here.mean)  # type: ignore[union-attr]
            norm.running_var.copy_(here.squares / (here.count - 1))  # type: ignore[union-attr]
    return copy


@final
class _Moments:
    """Mean and sum of squared differences from it, float64, merged batch by batch (Chan et al., 1983)."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, x: torch.Tensor) -> None:
        values = x.detach().double().transpose(0, 1).flatten(1)  # (channels, batch * positions)
        count, mean = values.shape[1], values.mean(1)
        squares = (values - mean[:, None]).square().sum(1).cpu()
        mean = mean.cpu()
        total, shift = self.count + count, mean - self.mean
        self.squares += squares + shift.square() * (self.count * count / total)
        self.mean += shift * (count / total)
        self.count = total


def _add(moments: _Moments, _: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    moments.add(args[0])


def _norms(graph: Graph) -> list[nn.Module]:
    return [part for part in graph.module.modules() if isinstance(part, _BATCH_NORMS) and part.track_running_stats]
