"""How a short fine-tuning is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from compressors.errors import OptionError
from compressors.tasks.noise import NoiseSchedule

if TYPE_CHECKING:
    from pathlib import Path

    from compressors.tune.regulariser import Regulariser

_POSITIVE = (
    "epochs",
    "max_seconds",
    "batch",
    "temperature",
    "trial_steps",
    "trial_samples",
    "evaluations",
    "least_steps",
    "decay_steps",
)
_SHARES = ("distillation", "momentum", "warmup", "label_smoothing", "ema", "erasing", "holdout_share", "gamma")
_NOT_NEGATIVE = ("features", "processes", "mixup", "weight_decay", "clip", "patience", "norm_batches")


@dataclass(frozen=True)
class TuneConfig:
    """Limits and recipe of one fine-tuning.

    Attributes:
        task: What the network is for, a name of `compressors.tasks.TASKS`; None to tell it by outputs and targets.
        epochs: Passes over the training samples, > 0; fractions are allowed.
        max_seconds: Wall-clock limit for everything, learning-rate search and evaluations included, > 0.
        batch: Samples per step, over all processes.
        optimizer: "auto" is AdamW for networks with layer or group norms or attention, else SGD.
        learning_rates: Peak rates to choose from by a short trial each; one alone is taken as it is. None is a list
            that fits the optimiser.
        trial_steps: Steps of such a trial.
        trial_samples: Held-back samples that a trial is judged on.
        temperature: Softens both distributions of the distillation loss.
        distillation: Weight of the distillation loss; the rest is the task's own, on samples that have targets.
        features: Weight of the relative squared difference of the tensors between the cuts; 0 leaves it out.
        label_smoothing: Share of a target that is spread over all classes.
        momentum: Of SGD.
        nesterov: Whether it is Nesterov's.
        weight_decay: On weights of two or more dimensions; not on norms, biases and gates. None fits the optimiser.
        decay_vectors: Whether norms and biases decay as well.
        clip: Largest norm of all gradients together; 0 does not clip. None is 1 for AdamW, none for SGD.
        ema: Decay of a moving average of the weights, e.g. 0.99; 0 has none. The average competes for the best moment.
        warmup: Share of the steps in which the rate rises to its peak.
        schedule: How the rate falls afterwards: along a line or half a cosine to zero, by a factor at milestones, or by
            a factor after so many steps, again and again.
        milestones: Shares of the training at which "milestones" multiplies the rate by `gamma`, ascending; none keeps
            it where it is.
        gamma: Factor of "milestones" and "steps".
        decay_steps: After how many steps "steps" multiplies the rate by `gamma`.
        augment: Random shift after padding by `shift` pixels, for image inputs; colour images are mirrored too.
        shift: Pixels; None is an eighth of the width.
        mixup: Alpha of mixup, for images; 0 does not mix.
        erasing: Chance that a rectangle of an image is replaced by noise.
        noise: Of a denoiser's diffusion, for samples that are clean images.
        evaluations: Least number of times that the held-back samples are scored.
        least_steps: A training that time will end before so many, as its second step tells, returns the start.
        patience: Stop after so many scorings in a row without a new best; 0 never stops early.
        keep: What is returned: the best moment by the held-back samples, or the last that is finite, for a training
            whose aim is not in its score (gates that close).
        norm_batches: Batches to estimate batch-norm statistics on before the training, where that helps; 0 does not.
        holdout_samples: At most this many held-back samples per scoring.
        holdout_share: Of the training samples that are held back where the caller has none.
        device: "auto", "cpu", "cuda" (all of them) or one GPU as "cuda:1".
        processes: How many train together, a share of each batch each; None is one per GPU.
        precision: What products are computed in; "auto" is bfloat16 where the hardware multiplies it, float16 on other
            GPUs, else float32.
        seed: For order, augmentation, noise and dropout.
        regulariser: What a strategy adds to the loss and the steps; None adds nothing.
        checkpoint: Folder to keep the state in, to go on from after a crash; None keeps none.
    """

    task: str | None = None
    epochs: float = 2.0
    max_seconds: float = float("inf")
    batch: int = 128
    optimizer: Literal["auto", "sgd", "adam", "adamw"] = "auto"
    learning_rates: tuple[float, ...] | None = None
    trial_steps: int = 40
    trial_samples: int = 1000
    temperature: float = 4.0
    distillation: float = 0.9
    features: float = 2.0
    label_smoothing: float = 0.0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float | None = None
    decay_vectors: bool = False
    clip: float | None = None
    ema: float = 0.0
    warmup: float = 0.15
    schedule: Literal["cosine", "linear", "milestones", "steps"] = "linear"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    decay_steps: int = 1
    augment: bool = True
    shift: int | None = None
    mixup: float = 0.0
    erasing: float = 0.0
    noise: NoiseSchedule = field(default_factory=NoiseSchedule)
    evaluations: int = 4
    least_steps: int = 1
    patience: int = 0
    keep: Literal["best", "last"] = "best"
    norm_batches: int = 0
    holdout_samples: int = 5000
    holdout_share: float = 0.2
    device: str = "auto"
    processes: int | None = None
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: int = 0
    regulariser: Regulariser | None = None
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if not getattr(self, name) > 0:
                raise OptionError(name, f"Fine-tuning: {name} has to be greater than 0; got {getattr(self, name)}.")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(name, f"Fine-tuning: {name} has to lie in 0..1; got {getattr(self, name)}.")
        for name in _NOT_NEGATIVE:
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise OptionError(name, f"Fine-tuning: {name} has to be at least 0; got {value}.")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < share < 1 for share in self.milestones):
            raise OptionError("milestones", f"Fine-tuning: milestones have to ascend in 0..1; got {self.milestones}.")
        rates = self.learning_rates
        if rates is not None and (not rates or not min(rates) > 0):
            raise OptionError("learning_rates", f"Fine-tuning: rates have to be > 0; got {rates}.")
