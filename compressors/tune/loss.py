"""What a step of fine-tuning minimises."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def distillation(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Returns T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over all but the classes.

    The factor T^2 keeps gradients as large as at T = 1 (Hinton et al., 2015).

    Args:
        student: Class scores, (batch, classes, ...).
        teacher: The same shape.
        temperature: T, > 0.
    """
    mine = F.log_softmax(student / temperature, dim=1)
    wanted = F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(mine, wanted, reduction="none", log_target=True).sum(1).mean() * temperature**2


def mixed(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float, share: float
) -> torch.Tensor:
    """Returns `share` distillation and the rest cross entropy; distillation alone where no sample has a label (-1)."""
    soft = distillation(student, teacher, temperature)
    if share >= 1 or not bool((labels >= 0).any()):
        return soft
    hard = F.cross_entropy(student, labels, ignore_index=-1)
    return share * soft + (1 - share) * hard
