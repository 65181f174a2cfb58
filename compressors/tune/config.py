"""How a short fine-tuning is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compressors.errors import OptionError


@dataclass(frozen=True)
class TuneConfig:
    """Limits and recipe of one fine-tuning.

    Attributes:
        epochs: Passes over the training samples, > 0; fractions are allowed.
        max_seconds: Wall-clock limit for everything, learning-rate search and evaluations included, > 0.
        batch: Samples per step.
        learning_rates: Peak rates to choose from by a short trial each; one alone is taken as it is.
        trial_steps: Steps of such a trial.
        trial_samples: Held-back samples that a trial is judged on.
        temperature: Softens both distributions of the distillation loss.
        distillation: Weight of the distillation loss; the rest is cross entropy, on samples that have labels.
        features: Weight of the relative squared difference of the tensors between the cuts; 0 leaves it out.
        momentum: Nesterov momentum.
        weight_decay: On weights of two or more dimensions; never on norms and biases.
        warmup: Share of the steps in which the rate rises to its peak.
        schedule: How the rate falls afterwards.
        augment: Random shift after padding by `shift` pixels, for image inputs; colour images are mirrored too.
        shift: Pixels; None is an eighth of the width.
        evaluations: Least number of times that the held-back samples are scored.
        holdout_samples: At most this many held-back samples per scoring.
        device: Where to train.
        reduced_precision: bfloat16 and channels-last; "auto" is where the hardware multiplies in bfloat16.
        seed: For order and augmentation.
    """

    epochs: float = 2.0
    max_seconds: float = float("inf")
    batch: int = 128
    learning_rates: tuple[float, ...] = (0.03, 0.01, 0.003, 0.001)
    trial_steps: int = 40
    trial_samples: int = 1000
    temperature: float = 4.0
    distillation: float = 0.9
    features: float = 2.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.15
    schedule: Literal["cosine", "linear"] = "linear"
    augment: bool = True
    shift: int | None = None
    evaluations: int = 4
    holdout_samples: int = 5000
    device: str = "cpu"
    reduced_precision: Literal["auto", "always", "never"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "max_seconds", "batch", "temperature", "trial_steps", "trial_samples", "evaluations"):
            if not getattr(self, name) > 0:
                raise OptionError(name, f"Fine-tuning: {name} has to be greater than 0; got {getattr(self, name)}.")
        for name in ("distillation", "momentum", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(name, f"Fine-tuning: {name} has to lie in 0..1; got {getattr(self, name)}.")
        if self.features < 0:
            raise OptionError("features", f"Fine-tuning: features has to be at least 0; got {self.features}.")
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise OptionError("learning_rates", f"Fine-tuning: rates have to be > 0; got {self.learning_rates}.")
