"""A published way to train, to the letter: one rate, its own decay and schedule, targets instead of a teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from compressors.tune.config import TuneConfig

_LARGEST = 256
"""Samples per step, at most: published trainings of 1,024 were shared by eight GPUs, a job has one machine's memory."""


@dataclass(frozen=True)
class Recipe:
    """How a paper trains.

    Attributes:
        optimizer: Which.
        rate: Peak learning rate at `batch` samples per step.
        batch: Samples per step.
        momentum: Of SGD.
        nesterov: Whether it is Nesterov's.
        weight_decay: >= 0.
        decay_vectors: Whether norms and biases decay like weights: what an optimiser does that is given all parameters.
        schedule: How the rate falls, as in `TuneConfig`.
        milestones: Shares of the training at which the rate is multiplied by `gamma`; none keeps it where it is.
        gamma: That factor.
        decay_steps: Steps after which the rate is multiplied by `gamma`, again and again, for schedule "steps".
        warmup: Share of the steps in which the rate rises.
        label_smoothing: Share of a target that is spread over all classes.
        clip: Largest norm of all gradients together; 0 does not clip.
        ema: Decay of a moving average of the weights; 0 has none.
    """

    optimizer: Literal["sgd", "adam", "adamw"]
    rate: float
    batch: int = 128
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_vectors: bool = True
    schedule: Literal["milestones", "cosine", "steps"] = "milestones"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    decay_steps: int = 1
    warmup: float = 0.0
    label_smoothing: float = 0.0
    clip: float = 0.0
    ema: float = 0.0

    def applied(self, config: TuneConfig, *, batch: int | None = None, rate: float | None = None) -> TuneConfig:
        """Returns a training of this recipe, with the limits of another.

        Samples with a target are trained on that alone; those without one are distilled, since nothing else is known.

        Args:
            config: Task, limits, device, seed, and what is kept.
            batch: Samples per step that were asked for; None is the recipe's, at most 256. The rate of SGD goes in
                proportion to it (Goyal et al., 2017), that of Adam stays.
            rate: Peak rate that was asked for; taken as it is.
        """
        size = min(self.batch, _LARGEST) if batch is None else batch
        scale = size / self.batch if self.optimizer == "sgd" else 1.0
        return replace(
            config,
            batch=size,
            optimizer=self.optimizer,
            learning_rates=(self.rate * scale if rate is None else rate,),
            distillation=0.0,
            features=0.0,
            label_smoothing=self.label_smoothing,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            decay_vectors=self.decay_vectors,
            clip=self.clip,
            ema=self.ema,
            warmup=self.warmup,
            schedule=self.schedule,
            milestones=self.milestones,
            gamma=self.gamma,
            decay_steps=self.decay_steps,
            mixup=0.0,
            erasing=0.0,
            norm_batches=0,
        )
