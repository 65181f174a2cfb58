"""How far a network has moved from the original, on samples that nothing was fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from compressors.batches import in_order
from compressors.problem import Score

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from compressors.graph import Graph
    from compressors.problem import Samples


def logits(output: Any) -> torch.Tensor:
    """Returns the class scores, (batch, classes, ...), of a network's output: its first tensor."""
    first = output[0] if isinstance(output, tuple | list) else output
    assert isinstance(first, torch.Tensor)
    return first.float()


@dataclass(frozen=True)
class Reference:
    """The original's decisions on some samples, computed once, so that many candidates can be compared with it.

    Attributes:
        samples: What they were computed on.
        log_probabilities: (n, classes, ...), float32.
        labels: (n,), -1 where there is none.
        batch: Samples per batch.
    """

    samples: Samples
    log_probabilities: torch.Tensor
    labels: torch.Tensor
    batch: int

    @staticmethod
    def of(original: Graph, samples: Samples, limit: int | None = None, batch: int = 256) -> Reference:
        """Returns the original's decisions on the first `limit` samples (all by default)."""
        found, labels = [], []
        with torch.no_grad():
            for part in in_order(samples, batch, limit):
                found.append(F.log_softmax(logits(original.module(*part.inputs)), dim=1))
                labels.append(part.labels)
        return Reference(samples, torch.cat(found), torch.cat(labels), batch)

    def score(self, module: nn.Module) -> Score:
        """Returns how `module`, in eval mode, compares on all of them."""
        batches = in_order(self.samples, self.batch, len(self.labels))
        with torch.no_grad():
            return self.compare(torch.cat([logits(module(*part.inputs)) for part in batches]))

    def compare(self, scores: torch.Tensor) -> Score:
        """Returns how class scores, (n, classes, ...), compare; same samples, same order.

        A score that is not finite agrees with nothing: its decision is wrong and the divergence infinite.
        """
        mine = F.log_softmax(scores.float(), dim=1)
        divergence = (self.log_probabilities.exp() * (self.log_probabilities - mine)).sum(1)
        decided, original = mine.argmax(1), self.log_probabilities.argmax(1)
        decided = decided.where(scores.isfinite().all(1), torch.full_like(decided, -2))
        known = self.labels >= 0
        accuracy = None
        if bool(known.any()) and decided.dim() == 1:
            accuracy = float((decided == self.labels)[known].float().mean())
        agreement = float((decided == original).float().mean())
        mean = float(divergence.mean())
        # Rounding can make the mean of an identical network a hair negative.
        return Score(max(mean, 0.0) if math.isfinite(mean) else math.inf, agreement, accuracy, len(self.labels))


def score(
    original: Graph,
    candidate: Graph,
    samples: Samples,
    limit: int | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> Score:
    """Returns how the candidate compares with the original on the first `limit` samples (all by default)."""
    reference = Reference.of(original, samples, limit)
    heartbeat()
    return reference.score(candidate.module)
