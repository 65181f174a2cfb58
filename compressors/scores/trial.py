"""Trial removals: what the loss says when a site goes, and which sites go together (TLC, 2025).

The gap of a set of sites is the loss without them minus the loss with them, on the same batches, in eval mode, without
gradients. A gap below zero says that the network is better off. By default gaps are scores, and the device has a say
in which sites go. As published, sites are sorted by their gaps; where the smallest is below zero, the first two, three,
... are removed together until the joint gap is above zero, and those go, the one that tipped it included. Where none
tips it, or the smallest gap is not below zero, one goes. So the less it matters, the less goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import final

import torch

from compressors.batches import Batch
from compressors.graph import Graph
from compressors.score import tensors

Loss = Callable[[Graph], float]
"""The mean loss of a network on data that does not change between calls."""

Remove = Callable[[Graph, tuple[str, ...]], Graph]
"""Returns a new graph without some sites, given by node name."""

Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The mean loss of one output, (batch, ...), given the targets of the batch."""


def fixed_loss(batches: Iterable[Batch], criterion: Criterion, judged: int = 0) -> Loss:
    """Returns a loss on these very batches, which are kept: every network sees the same values.

    Networks are run in eval mode without gradients and left in the mode that they were in; torch's random state is left
    as it was. One batch is what the published code looks at.

    Args:
        batches: Read once.
        criterion: Applied per batch; the mean over samples is taken.
        judged: Which output the targets belong to.

    Raises:
        ValueError: There is no sample.
    """
    kept = list(batches)
    total = sum(len(batch) for batch in kept)
    if not total:
        raise ValueError("a loss needs at least one sample to be computed on")

    def loss(graph: Graph) -> float:
        was_training = graph.module.training
        graph.module.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                values = [len(b) * float(criterion(tensors(graph.module(*b.inputs))[judged], b.labels)) for b in kept]
        finally:
            graph.module.train(was_training)
        return sum(values) / total

    return loss


@final
class Trials:
    """Gaps of one graph; each set of sites is tried once.

    Args:
        graph: The network as it is now; not changed.
        remove: How sites go.
        loss: What counts; see `fixed_loss`.
    """

    def __init__(self, graph: Graph, remove: Remove, loss: Loss) -> None:
        self._graph = graph
        self._remove = remove
        self._loss = loss
        self._known: dict[frozenset[str], float] = {}
        self.base = loss(graph)

    def gap(self, sites: Sequence[str]) -> float:
        """Returns the joint gap of some sites; infinite where the loss is not a number."""
        key = frozenset(sites)
        if key not in self._known:
            value = self._loss(self._remove(self._graph, tuple(sites))) - self.base if sites else 0.0
            self._known[key] = math.inf if math.isnan(value) else value
        return self._known[key]

    def gaps(self, sites: Iterable[str]) -> dict[str, float]:
        """Returns the gap of every site alone, smallest first; the first of equals stays first."""
        found = {site: self.gap((site,)) for site in sites}
        return dict(sorted(found.items(), key=lambda item: item[1]))


def published(gaps: Mapping[str, float], joint: Callable[[tuple[str, ...]], float]) -> tuple[str, ...]:
    """Returns the sites that the published code removes together.

    Args:
        gaps: Gap of each site alone.
        joint: Gap of several together.
    """
    order = sorted(gaps, key=lambda name: gaps[name])
    if order and gaps[order[0]] < 0:
        for n in range(2, len(order)):
            if joint(tuple(order[:n])) > 0:
                return tuple(order[:n])
    return tuple(order[:1])
