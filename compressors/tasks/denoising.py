"""Prediction of the noise in a noisy image, what diffusion models do at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

from torch.nn import functional as F

from compressors.tasks.relative import VARIANCE, explained, relative_error
from compressors.tasks.task import Task

if TYPE_CHECKING:
    import torch


@final
class Denoising(Task):
    """Predicted noise, of an image's shape; the target is the noise that was put in (Ho et al., 2020, equation 14).

    Int64 targets are what samples without a known noise have; they are ignored.
    """

    name: ClassVar[str] = "denoising"
    metric_name: ClassVar[str] = "noise-prediction error"
    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "mean squared error"
    divergence_unit: ClassVar[str] = VARIANCE

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor | None:  # noqa: ARG002
        """Returns the mean squared error."""
        return F.mse_loss(outputs, targets) if targets.is_floating_point() else None

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:  # noqa: ARG002
        """Returns the mean squared error relative to the variance of the teacher's prediction."""
        return relative_error(student, teacher).mean()

    def divergence(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Returns the same per sample."""
        return relative_error(student, teacher)

    def agreement(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Returns the share of the variation of the original's prediction that is reproduced."""
        return explained(student, teacher)

    def metric(self, outputs: torch.Tensor, targets: torch.Tensor) -> float | None:
        """Returns the mean squared error of the predicted noise."""
        if not targets.is_floating_point():
            return None
        error = float((outputs - targets).double().square().mean())
        return error if error == error else float("inf")  # noqa: PLR0124  # NaN is not itself
