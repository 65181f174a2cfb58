"""What a step of fine-tuning minimises, its penalties left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from compressors.tasks.relative import relative_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.tasks import Task
    from compressors.tune.config import TuneConfig


def mixed(
    task: Task, student: torch.Tensor, teacher: torch.Tensor, targets: torch.Tensor, config: TuneConfig
) -> torch.Tensor:
    """Returns distillation and the task's own loss, weighted; distillation alone where no sample has a target.

    Args:
        task: What the outputs mean.
        student: Outputs of what is trained, (n, ...).
        teacher: Of the original, the same shape.
        targets: As the task takes them.
        config: `distillation` is the weight of the first, `temperature` and `label_smoothing` shape them.
    """
    share = config.distillation
    hard = task.loss(student, targets, config.label_smoothing) if share < 1 else None
    if hard is not None and share == 0:
        return hard
    soft = task.distillation(student, teacher, config.temperature)
    return soft if hard is None else share * soft + (1 - share) * hard


def rest(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], config: TuneConfig) -> torch.Tensor:
    """Returns what the outputs besides the judged one add: the mean of their relative errors, weighted.

    Args:
        student: Those outputs of what is trained, each (n, ...).
        teacher: Of the original.
        config: `distillation` is the weight.
    """
    errors = [relative_error(mine, wanted).mean() for mine, wanted in zip(student, teacher, strict=True)]
    return config.distillation * torch.stack(errors).mean()
