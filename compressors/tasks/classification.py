"""One class per sample, or per position of a dense output: images and texts alike."""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch.nn import functional as F

from compressors.tasks.task import Task

_UNDECIDED = -2
"""The decision of scores that are not finite: no label and no other decision is equal to it."""


@final
class Classification(Task):
    """Softmax class scores, (n, classes, ...); targets int64, -1 for none, of the shape of the scores without classes.

    Targets that do not fit a dense output (one class per image, a score per pixel) are ignored: such a network is
    only compared with the original. While training, targets may also be probabilities, (n, classes), as mixing makes.
    """

    name: ClassVar[str] = "classification"
    metric_name: ClassVar[str] = "top-1 accuracy"

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor | None:
        """Returns the cross entropy with the labels."""
        if targets.is_floating_point():
            return F.cross_entropy(outputs, targets, label_smoothing=smoothing)
        if not _fit(outputs, targets) or not bool((targets >= 0).any()):
            return None
        return F.cross_entropy(outputs, targets, ignore_index=-1, label_smoothing=smoothing)

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Returns T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over all but the classes.

        The factor T^2 keeps gradients as large as at T = 1 (Hinton et al., 2015).
        """
        mine = F.log_softmax(student / temperature, dim=1)
        wanted = F.log_softmax(teacher / temperature, dim=1)
        return F.kl_div(mine, wanted, reduction="none", log_target=True).sum(1).mean() * temperature**2

    def divergence(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Returns KL(softmax(teacher) || softmax(student)) in nats, averaged over a sample's positions."""
        mine, wanted = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
        return _by_sample((wanted.exp() * (wanted - mine)).sum(1))

    def agreement(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Returns the share of a sample's positions with the original's top-1."""
        return _by_sample((_decisions(student) == teacher.argmax(1)).float())

    def metric(self, outputs: torch.Tensor, targets: torch.Tensor) -> float | None:
        """Returns the top-1 accuracy, over positions where the output is dense."""
        if targets.is_floating_point() or not _fit(outputs, targets):
            return None
        known = targets >= 0
        if not bool(known.any()):
            return None
        return float((_decisions(outputs) == targets)[known].float().mean())


def _fit(outputs: torch.Tensor, targets: torch.Tensor) -> bool:
    return targets.shape == outputs.shape[:1] + outputs.shape[2:]


def _decisions(scores: torch.Tensor) -> torch.Tensor:
    decided = scores.argmax(1)
    return decided.where(scores.isfinite().all(1), torch.full_like(decided, _UNDECIDED))


def _by_sample(values: torch.Tensor) -> torch.Tensor:
    return values if values.dim() == 1 else values.flatten(1).mean(1)
