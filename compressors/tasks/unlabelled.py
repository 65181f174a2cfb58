"""A network that is only compared with the original: embeddings, regressions, anything without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, final

from compressors.tasks.relative import VARIANCE, explained, relative_error
from compressors.tasks.task import Task

if TYPE_CHECKING:
    import torch


@final
class Unlabelled(Task):
    """Outputs of any shape that are no class scores; targets are not looked at."""

    name: ClassVar[str] = "none"
    metric_name: ClassVar[str] = ""
    divergence_unit: ClassVar[str] = VARIANCE

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor | None:  # noqa: ARG002
        """Returns None: there is nothing to learn from but the original."""
        return None

    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:  # noqa: ARG002
        """Returns the mean relative error; a temperature means nothing here."""
        return relative_error(student, teacher).mean()

    def divergence(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Returns the relative error."""
        return relative_error(student, teacher)

    def agreement(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Returns the share of the original's variation that is reproduced."""
        return explained(student, teacher)

    def metric(self, outputs: torch.Tensor, targets: torch.Tensor) -> float | None:  # noqa: ARG002
        """Returns None."""
        return None
