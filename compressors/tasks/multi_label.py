"""Any number of classes per sample, each decided on its own."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch.nn import functional as F

from compressors.tasks.task import Task


@final
class MultiLabel(Task):
    """Sigmoid scores, (n, classes); targets float32 (n, classes) in [0, 1], NaN where it is not known.

    A network with one score and int64 labels 0 and 1 (-1 for none) is the case of one class.

    The metric is the mean over the classes of the average precision, as PASCAL VOC (since 2010) and MS-COCO's
    multi-label benchmarks report it: unlike F1 it needs no threshold, and rare classes count as much as common ones.
    """

    name: ClassVar[str] = "multi_label"
    metric_name: ClassVar[str] = "mean average precision"

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor | None:
        """Returns the binary cross entropy, averaged over what is known; smoothing moves targets towards 1/2."""
        wanted = _probabilities(targets)
        known = wanted.isfinite()
        if not bool(known.any()):
            return None
        wanted = wanted * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs[known], wanted[known])

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Returns T^2 times the mean over classes of KL(Bernoulli(teacher / T) || Bernoulli(student / T))."""
        return _bernoulli(student / temperature, teacher / temperature).mean() * temperature**2

    def divergence(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Returns the mean over classes of KL(Bernoulli(teacher) || Bernoulli(student)) in nats."""
        return _bernoulli(student, teacher).flatten(1).mean(1)

    def agreement(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Returns the share of classes that both find in a sample, or both do not."""
        same = ((student > 0) == (teacher > 0)) & student.isfinite()
        return same.float().flatten(1).mean(1)

    def metric(self, outputs: torch.Tensor, targets: torch.Tensor) -> float | None:
        """Returns the mean average precision over the classes that some sample has; a target above 1/2 is a yes."""
        wanted = _probabilities(targets)
        found = [
            average_precision(outputs[known, at], wanted[known, at] > 0.5)
            for at, known in enumerate(wanted.isfinite().unbind(1))
            if bool((wanted[known, at] > 0.5).any())
        ]
        return sum(found) / len(found) if found else None


def average_precision(scores: torch.Tensor, positive: torch.Tensor) -> float:
    """Returns the sum over thresholds of precision times the recall gained there; equal scores are one threshold.

    Args:
        scores: (n,); one that is not finite is ranked as wrong as it can be.
        positive: bool (n,), at least one of them true.
    """
    worst = torch.where(positive, -torch.inf, torch.inf)
    ranked, order = scores.double().where(scores.isfinite(), worst.double()).sort(descending=True)
    hits = positive[order].double().cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1)
    last_of_ties = torch.cat([ranked[1:] != ranked[:-1], torch.ones(1, dtype=torch.bool)])
    gained = hits[last_of_ties].diff(prepend=torch.zeros(1, dtype=torch.float64)) / hits[-1]
    return float((precision[last_of_ties] * gained).sum())


def _probabilities(targets: torch.Tensor) -> torch.Tensor:
    if targets.is_floating_point():
        return targets
    yes = targets.float()[:, None]  # (n, 1)
    return yes.where(yes >= 0, torch.full_like(yes, torch.nan))


def _bernoulli(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Returns KL(Bernoulli(sigmoid teacher) || Bernoulli(sigmoid student)) per element."""
    yes = F.logsigmoid(teacher) - F.logsigmoid(student)
    no = F.logsigmoid(-teacher) - F.logsigmoid(-student)
    return teacher.sigmoid() * yes + (-teacher).sigmoid() * no
