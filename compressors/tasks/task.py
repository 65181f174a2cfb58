"""What every task answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import torch


class Task(ABC):
    """What a network's output means: how it is trained, compared with the original's, and judged.

    All methods take float32 outputs, batch first; targets as `compressors.problem.Sample` has them, stacked.

    Attributes:
        name: What options and reports call the task.
        metric_name: What `metric` computes, in the field's words.
        higher_is_better: Which way of the metric is up.
        unit: Of the metric, in words that follow a number; `fraction` is shown in percent.
        divergence_unit: What `divergence` is counted in.
    """

    name: ClassVar[str]
    metric_name: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = "fraction"
    divergence_unit: ClassVar[str] = "nats"

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor | None:
        """Returns the mean loss over the samples that have a target; None where there is none.

        Args:
            outputs: Of the network, (n, ...).
            targets: What they should be.
            smoothing: Share of a class target that is spread over all classes, in [0, 1).
        """

    @abstractmethod
    def distillation(self, student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Returns a differentiable distance, 0 where the two are equal; `temperature` softens probabilities."""

    @abstractmethod
    def divergence(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Returns how far each sample's output is from the original's, (n,); 0 is identical."""

    @abstractmethod
    def agreement(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Returns how much of each sample's decision is the original's, (n,), in [0, 1]; 0 where it is not finite."""

    @abstractmethod
    def metric(self, outputs: torch.Tensor, targets: torch.Tensor) -> float | None:
        """Returns the field's figure of merit over all samples; None where no sample has a target."""
