"""Gradient steps on one network towards another, under a rate that rises, falls, and ends in time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch

from compressors.batches import count, fetch
from compressors.score import logits
from compressors.tune.augment import default_shift, is_image, shift_and_flip
from compressors.tune.features import difference, shared_positions, with_features
from compressors.tune.loss import mixed
from compressors.tune.precision import Precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import fx, nn

    from compressors.batches import Batch
    from compressors.graph import Graph
    from compressors.problem import Samples
    from compressors.tune.config import TuneConfig


@dataclass(frozen=True)
class Moment:
    """Where a training stands after a step.

    Attributes:
        step: Steps done.
        progress: Share done, 0 to 1, by steps or by time, whichever is further.
        loss: Mean over the last steps.
        seconds: Since its start.
    """

    step: int
    progress: float
    loss: float
    seconds: float


@dataclass(frozen=True)
class Stretch:
    """How far one training goes.

    Attributes:
        steps: At most so many.
        seconds: At most so long; the schedule shortens itself so that the rate has come down when time is up.
        peak: Highest learning rate.
    """

    steps: int
    seconds: float
    peak: float


def rate(progress: float, config: TuneConfig) -> float:
    """Returns the learning rate as a share of its peak: linear up during warm-up, then down to zero."""
    if progress < config.warmup:
        return max(progress / config.warmup, 0.01)
    left = (1 - progress) / (1 - config.warmup) if config.warmup < 1 else 1.0
    if config.schedule == "linear":
        return left
    return 0.5 * (1 - float(torch.cos(torch.tensor(left * torch.pi))))


@final
class Training:
    """A student, its teacher and their data.

    Args:
        student: Trained in place.
        original: The teacher.
        samples: Training samples; -1 labels are distilled only.
        config: Recipe.
    """

    def __init__(self, student: fx.GraphModule, original: Graph, samples: Samples, config: TuneConfig) -> None:
        self._config = config
        self._precision = Precision.choose(config.device, config.reduced_precision)
        self._student = student
        self._teacher = original.copied().module
        for module in (self._student, self._teacher):
            self._precision.place_module(module)
        names = shared_positions(original, student) if config.features > 0 else ()
        self._student_features = with_features(self._student, names)
        self._teacher_features = with_features(self._teacher, names)
        self._has_features = bool(names)
        self._samples = samples
        self._shape = original.inputs[0].shape
        self._generator = torch.Generator().manual_seed(config.seed)

    def run(self, stretch: Stretch, after_step: Callable[[Moment], None]) -> None:
        """Trains; the student is left in eval mode."""
        optimizer = _optimizer(self._student, stretch.peak, self._config)
        started, progress, loss = time.monotonic(), 0.0, 0.0
        for step, batch in enumerate(self._batches(stretch.steps), start=1):
            self._student.train()
            for group in optimizer.param_groups:
                group["lr"] = stretch.peak * rate(progress, self._config)
            here = self._step(batch, optimizer)
            loss = here if step == 1 else 0.95 * loss + 0.05 * here
            seconds = time.monotonic() - started
            progress = max(step / stretch.steps, seconds / stretch.seconds)
            self._student.eval()
            after_step(Moment(step, min(progress, 1.0), loss, seconds))
            if progress >= 1:
                break

    def _step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> float:
        inputs, labels = self._prepare(batch)
        with self._precision.autocast():
            with torch.no_grad():
                wanted, targets = self._teacher_features(*inputs)
            scores, features = self._student_features(*inputs)
        loss = mixed(logits(scores), logits(wanted), labels, self._config.temperature, self._config.distillation)
        if self._has_features:
            loss = loss + self._config.features * difference(features, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    def _prepare(self, batch: Batch) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        inputs = batch.inputs
        if self._config.augment and is_image(self._shape):
            shift = default_shift(self._shape) if self._config.shift is None else self._config.shift
            inputs = (shift_and_flip(inputs[0], shift, self._generator), *inputs[1:])
        return tuple(map(self._precision.place, inputs)), batch.labels.to(self._precision.device)

    def _batches(self, steps: int) -> Iterator[Batch]:
        """Yields full batches, every sample once per epoch in a new order, without end up to `steps`."""
        total = count(self._samples)
        size = min(self._config.batch, total)
        done = 0
        while done < steps:
            order = torch.randperm(total, generator=self._generator).tolist()
            for start in range(0, total - size + 1, size):
                yield fetch(self._samples, order[start : start + size])
                done += 1
                if done == steps:
                    return


def steps_per_epoch(samples: Samples, config: TuneConfig) -> int:
    """Returns how many steps see every sample once (a last partial batch is left out)."""
    return max(1, count(samples) // config.batch)


def _optimizer(module: nn.Module, peak: float, config: TuneConfig) -> torch.optim.Optimizer:
    # Decay on norm gains and biases harms short trainings.
    matrices = [parameter for parameter in module.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in module.parameters() if parameter.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=peak, momentum=config.momentum, nesterov=config.momentum > 0)
