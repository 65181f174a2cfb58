"""TLC as published: a trial says which activations go, their channels' means which channels go with them.

Source: Liao et al., AAAI 2025, and the rules of its published code. On one fixed batch, the gap of an activation is the
loss without it minus the loss with it; which go together: `scores.trial.published`. The weights of channels whose input
has a mean of at most zero (beta of the batch norm, or measured) are masked, for as long as is trained here; the others
are passed on. The published code draws the batch's augmentation anew for every trial; here the batch stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch

from compressors.analysis.segments import Refusal
from compressors.batches import in_order
from compressors.collapse import site_statistics
from compressors.score import Reference
from compressors.scores.likelihood import Likelihood, likelihoods
from compressors.scores.masking import Mask, mask_channels
from compressors.scores.trial import Loss, Trials, fixed_loss, published
from compressors.strategies.parity import Stage, rectifiers, train_evenly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.analysis.segments import Site
    from compressors.graph import Graph
    from compressors.problem import Problem

_BATCH = 128
"""Samples of the one batch that trials look at, as published for CIFAR-10."""


@final
@dataclass(frozen=True)
class PublishedTrials:
    """TLC's order (`compressors.strategies.parity.ParityMethod`)."""

    problem: Problem

    def sites(self) -> Sequence[Site]:
        """Returns every ReLU, ReLU6 and GELU."""
        return rectifiers(self.problem.analysis.sites)

    def advance(self, stage: Stage, waiting: Sequence[Site]) -> Stage | None:
        """Returns the network without the activations that a trial misses least, trained with their channels masked."""
        found = self._likelihoods(stage.graph, waiting)
        if not found:
            return None

        def without(network: Graph, names: tuple[str, ...]) -> Graph:
            return mask_channels(network, [found[name] for name in names]).graph

        trials = Trials(stage.graph, without, trial_loss(self.problem))
        chosen = published(trials.gaps(found), trials.gap)
        masked = mask_channels(stage.graph, [found[name] for name in chosen])
        rows = joined(stage.rows, masked.rows)
        graph = train_evenly(self.problem, "tlc", masked.graph, waiting, Mask(rows))
        return Stage(graph, (*stage.gone, *chosen), rows=rows)

    def _likelihoods(self, graph: Graph, sites: Sequence[Site]) -> dict[str, Likelihood]:
        """Returns what the channels' means are, measured on one batch, padding included, where no batch norm tells."""
        batches = (batch.inputs for batch in in_order(self.problem.selection, _BATCH, _BATCH))
        statistics = site_statistics(graph, batches, sites)
        found = likelihoods(graph, sites, statistics, parity=True)
        return {name: one for name, one in found.items() if not isinstance(one, Refusal)}


def trial_loss(problem: Problem) -> Loss:
    """Returns the task's own loss on one batch; where that has no target, the divergence from the original there.

    For classes that is the cross-entropy, as published.
    """
    batches = list(in_order(problem.selection, _BATCH, _BATCH))
    reference = Reference.of(problem.graph, problem.selection, _BATCH, _BATCH, problem.task)
    task, judged = reference.task, reference.judged

    def criterion(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = task.loss(outputs, targets)
        assert loss is not None, "the original's outputs had a loss on the same targets"
        return loss

    if task.loss(reference.outputs[judged], reference.labels) is None:
        return lambda network: reference.score(network.module).divergence
    return fixed_loss(batches, criterion, judged)


def joined(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the rows that are masked by either; bool, (channels,), by module path."""
    found = dict(first)
    for path, rows in second.items():
        found[path] = found[path] | rows if path in found else rows
    return found
