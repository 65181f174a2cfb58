"""How undecided the signs of an activation's inputs are (EASIER, 2024).

A channel is on where its input is above zero and off where it is below. With p the rate of on, its entropy in bits is

    H = -p log2 p - (1 - p) log2 (1 - p),                                                         (EASIER, section 3)

and a layer's is the mean over its channels. A layer whose inputs hardly ever change sign does hardly anything.

1. pooled (default): signs are counted over all batches, then one entropy is computed. Inputs of exactly zero are
   neither on nor off: they are left out and p is renormalised, as in the paper; a channel of zeros alone has H = 0.
2. per batch (parity): one entropy per batch, then the mean over batches, the last small one counting like the others.
   It is never larger than what pooling gives (Jensen's inequality), and far smaller for small batches. The published
   code counts zero as on, bounds the logarithm's argument by 1e-10, and looks at the network in training mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from compressors.analysis.segments import Site
from compressors.collapse.watch import watch
from compressors.graph import Graph
from compressors.shapes import propagate, remember

Estimator = Literal["pooled", "per_batch"]
Zeros = Literal["dropped", "on"]

_SMALLEST = 1e-10
"""What the published code bounds the logarithm's argument by; changes a value by 4e-9 bits at most."""

KINDS = frozenset({"relu", "relu6", "gelu"})
"""Activations that the published code considers."""


@dataclass(frozen=True)
class EntropyConfig:
    """How to estimate.

    Attributes:
        estimator: "pooled" counts over all batches; "per_batch" averages the batches' entropies (parity).
        zeros: What an input of exactly zero is: "dropped" (the paper) or "on" (its code).
        train_mode: Whether batch norms use the batch's own statistics, as in the published code, which looks while it
            trains. The graph's stored statistics stay as they are.
        mask: Name of the input of shape (batch, tokens) that is zero for padding, which does not count.
    """

    estimator: Estimator = "pooled"
    zeros: Zeros = "dropped"
    train_mode: bool = False
    mask: str | None = None


PARITY = EntropyConfig("per_batch", "on", train_mode=True)


@dataclass(frozen=True, eq=False)
class SignCounts:
    """Signs of one site's inputs, per channel; int64, shape (channels,), on the CPU.

    Attributes:
        on: Above zero.
        off: Below zero.
        zero: Exactly zero; what is left to `total` is NaN.
        total: Entries per channel.
    """

    on: torch.Tensor
    off: torch.Tensor
    zero: torch.Tensor
    total: int

    def __add__(self, other: SignCounts) -> SignCounts:
        """Returns the counts of both."""
        return SignCounts(self.on + other.on, self.off + other.off, self.zero + other.zero, self.total + other.total)

    def rates(self, zeros: Zeros) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the rates of on and off per channel, float64, in [0, 1]; both 0 where nothing is left to count."""
        if zeros == "dropped":
            counted = (self.on + self.off).clamp_min(1)
            return self.on.double() / counted, self.off.double() / counted
        counted = torch.tensor(max(self.total, 1))
        return (self.on + self.zero).double() / counted, self.off.double() / counted

    def entropy(self, zeros: Zeros) -> torch.Tensor:
        """Returns bits per channel, float64, in [0, 1]."""
        on, off = self.rates(zeros)
        return _bits(on) + _bits(off)


@dataclass(frozen=True, eq=False)
class SiteEntropy:
    """What one site's signs tell.

    Attributes:
        node: Node name of the site.
        channels: Bits per channel, float64, shape (channels,).
        counts: Signs over all batches together, whatever the estimator.
    """

    node: str
    channels: torch.Tensor
    counts: SignCounts

    @property
    def layer(self) -> float:
        """Mean over the channels in bits, in [0, 1]; the lower, the less the activation does."""
        return float(self.channels.mean())


def entropies(
    graph: Graph,
    batches: Iterable[tuple[torch.Tensor, ...]],
    sites: Sequence[Site] | None = None,
    config: EntropyConfig | None = None,
) -> dict[str, SiteEntropy]:
    """Returns the entropy of every site, by node name; streamed, memory does not grow with the data.

    Args:
        graph: The model.
        batches: Its inputs, one tuple per batch, read once; on the model's device.
        sites: Which activation calls; all by default.
        config: How to estimate.

    Raises:
        OptionError: There is no batch, or no input of the mask's name.
    """
    wanted = config or EntropyConfig()
    counts: dict[str, SignCounts] = {}
    sums: dict[str, torch.Tensor] = {}
    seen: dict[str, int] = {}

    def look(name: str, _axis: int | None, z: torch.Tensor, _s: torch.Tensor) -> None:
        here = count_signs(z)
        counts[name] = counts[name] + here if name in counts else here
        sums[name] = sums.get(name, 0) + here.entropy(wanted.zeros)
        seen[name] = seen.get(name, 0) + 1

    names = watch(_training(graph) if wanted.train_mode else graph, batches, look, sites, wanted.mask)
    if wanted.estimator == "per_batch":
        return {name: SiteEntropy(name, sums[name] / seen[name], counts[name]) for name in names}
    return {name: SiteEntropy(name, counts[name].entropy(wanted.zeros), counts[name]) for name in names}


def count_signs(z: torch.Tensor) -> SignCounts:
    """Returns the signs of one batch.

    Args:
        z: Inputs, shape (channels, entries).
    """
    on, off, zero = ((z > 0).sum(1), (z < 0).sum(1), (z == 0).sum(1))
    return SignCounts(on.cpu(), off.cpu(), zero.cpu(), z.shape[1])


def lowest(found: Mapping[str, float], *, parity: bool = False) -> tuple[str, ...]:
    """Returns which sites to linearise next: the one of the lowest entropy, the first of equals.

    Args:
        found: Layer entropy of every site that is left.
        parity: Whether every site of entropy zero goes with it, as in the published code; in `found`'s order.
    """
    if not found:
        return ()
    best = min(found, key=lambda name: found[name])
    return tuple(name for name in found if name == best or (parity and found[name] == 0))


def _bits(p: torch.Tensor) -> torch.Tensor:
    return -p * torch.log2(p.clamp_min(_SMALLEST))


def _training(graph: Graph) -> Graph:
    """Returns a copy whose batch norms use and move statistics of their own."""
    copy = graph.copied()
    remember(copy.module, copy.inputs, propagate(graph.module, graph.inputs))
    copy.module.train()
    return copy
