"""Gradient steps on one network towards another, under a rate that rises, falls, and ends in time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch

from compressors.batches import Batch, count, fetch
from compressors.score import tensors, token_mask
from compressors.tasks import Classification, DrawnSamples, MultiLabel, Task, judged_output
from compressors.tune.augment import changed, is_image, mixed_up
from compressors.tune.features import counted, difference, folded, shared_positions, with_features
from compressors.tune.loss import mixed, rest
from compressors.tune.optimise import CLIP, choose_optimizer, make_optimizer, make_schedule, set_rate
from compressors.tune.randomness import generator, seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import fx

    from compressors.graph import Graph
    from compressors.problem import Samples
    from compressors.tune.config import TuneConfig
    from compressors.tune.devices import Devices


@dataclass(frozen=True)
class Moment:
    """Where a training stands after a step.

    Attributes:
        step: Steps done.
        progress: Share done, 0 to 1, by steps or by time, whichever is further.
        loss: Mean over the last steps.
        seconds: Since its start.
        rate: Learning rate of the step.
    """

    step: int
    progress: float
    loss: float
    seconds: float
    rate: float = 0.0


@dataclass(frozen=True)
class Stretch:
    """How far one training goes.

    Attributes:
        steps: At most so many.
        seconds: At most so long; the schedule shortens itself so that the rate has come down when time is up.
        peak: Highest learning rate.
        share: Of the way that parameters with a `travel` of their own go; a trial is a part of the whole training.
    """

    steps: int
    seconds: float
    peak: float
    share: float = 1.0


@dataclass(frozen=True)
class Course:
    """What all trainings of one fine-tuning share.

    Attributes:
        original: The teacher.
        samples: Training samples; those without a target are distilled only.
        task: What the outputs mean.
        config: Recipe.
        devices: Where.
    """

    original: Graph
    samples: Samples
    task: Task
    config: TuneConfig
    devices: Devices


@final
class Training:
    """A student on a course.

    Args:
        student: Trained in place.
        course: Teacher, data and recipe.
        stretch: How far.
    """

    def __init__(self, student: fx.GraphModule, course: Course, stretch: Stretch) -> None:
        from timm.utils import ModelEmaV3

        self._student, self._course, self._stretch = student, course, stretch
        self._config, self._devices = course.config, course.devices
        names = shared_positions(course.original, student) if self._config.features > 0 else ()
        teacher = folded(course.original, names)
        for module in (student, teacher):
            self._devices.place_module(module)
        self._has_features = bool(names)
        self._mask, self._judged = token_mask(course.original), judged_output(course.original)
        self._teacher = with_features(teacher, names)
        self._ema = ModelEmaV3(student, self._config.ema, use_warmup=True) if self._config.ema > 0 else None
        kind = choose_optimizer(student, self._config)
        self._clip = CLIP[kind] if self._config.clip is None else self._config.clip
        own = self._config.regulariser.parameter_groups(student) if self._config.regulariser else ()
        optimizer = make_optimizer(student, kind, stretch.peak, self._config, own)
        self._model, self._optimizer = self._devices.prepared(with_features(student, names), optimizer)
        self._schedule = make_schedule(optimizer, stretch.peak, self._config)
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._inner = optimizer
        self._step, self._progress, self._loss, self._before = 0, 0.0, 0.0, 0.0

    def run(self, after_step: Callable[[Moment], bool]) -> None:
        """Trains until the end of the stretch, or until `after_step` returns False; leaves the student in eval mode."""
        started = time.monotonic()
        for batch in self._batches():
            self._student.train()
            rate = self._set_rate()
            loss = self._descend(batch, rate)
            self._student.eval()
            self._loss = loss if self._step == 0 else 0.95 * self._loss + 0.05 * loss
            self._step += 1
            seconds = self._before + time.monotonic() - started
            here = max(self._step / self._stretch.steps, seconds / self._stretch.seconds, self._progress)
            if not math.isfinite(loss) and self._devices.scaler is None:
                here = 1.0  # no step leads back from here
            self._progress = self._devices.agree(min(here, 1.0))
            moment = Moment(self._step, self._progress, self._loss, seconds, rate)
            go_on = self._devices.agree(after_step(moment) if self._devices.main else True)
            if self._progress >= 1 or not go_on:
                break

    def competitors(self) -> Iterator[fx.GraphModule]:
        """Yields the networks that the training has to offer now: the student, and the average of its weights."""
        yield self._student
        if self._ema is not None:
            yield self._ema.module

    def state(self, seconds: float) -> dict[str, Any]:
        """Returns all that is needed to go on from here, `seconds` after the start.

        Randomness is not in it: it follows from the seed and the step.
        """
        scaler = self._devices.scaler
        return {
            "step": self._step,
            "progress": self._progress,
            "loss": self._loss,
            "seconds": seconds,
            "student": self._student.state_dict(),
            "optimizer": self._inner.state_dict(),
            "ema": None if self._ema is None else self._ema.module.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Goes on from a state of a training of the same student, course and stretch."""
        self._step, self._progress = state["step"], state["progress"]
        self._loss, self._before = state["loss"], state["seconds"]
        self._student.load_state_dict(state["student"])
        self._inner.load_state_dict(state["optimizer"])
        if self._ema is not None:
            self._ema.module.load_state_dict(state["ema"])
        if self._devices.scaler is not None:
            self._devices.scaler.load_state_dict(state["scaler"])

    def _set_rate(self) -> float:
        # What a step does is told by those so far: time may end the training before its last step.
        each = self._progress / self._step if self._step else 1 / self._stretch.steps
        done = self._step if self._config.schedule == "steps" else None
        set_rate(self._schedule, self._progress, self._stretch.share * each, done)
        return float(self._inner.param_groups[0]["lr"])

    def _descend(self, indices: Sequence[int], rate: float) -> float:
        """Does one step on the samples at `indices` at a rate, and returns its loss."""
        config = self._config
        with seeded(config.seed, "step", self._step, self._devices.rank) as source:
            inputs, targets = self._prepare(self._fetch(indices, source), source)
            loss = self._loss_of(inputs, targets)
            if config.regulariser is not None:
                loss = loss + config.regulariser.penalty(self._student)
            self._optimizer.zero_grad(set_to_none=True)
            self._devices.backward(loss)
            if self._clip > 0:
                self._devices.clip(self._parameters, self._clip)
            self._optimizer.step()
        if config.regulariser is not None:
            config.regulariser.after_step(self._student, rate / self._stretch.peak)
        if self._ema is not None:
            self._ema.update(self._student, self._step + 1)
        return float(loss.detach())

    def _loss_of(self, inputs: tuple[torch.Tensor, ...], targets: torch.Tensor) -> torch.Tensor:
        outputs, features = self._model(*inputs)
        mask = None if self._mask is None else inputs[self._mask].bool()
        mine, at = [counted(each, mask) for each in tensors(outputs)], self._judged
        if self._config.distillation == 0 and not self._has_features:
            loss = self._course.task.loss(mine[at], targets, self._config.label_smoothing)
            if loss is not None:
                return loss  # the teacher has nothing to say
        with torch.no_grad(), self._devices.autocast():
            wanted, references = self._teacher(*inputs)
        theirs = [counted(each, mask) for each in tensors(wanted)]
        loss = mixed(self._course.task, mine[at], theirs[at], targets, self._config)
        if len(mine) > 1:
            loss = loss + rest([*mine[:at], *mine[at + 1 :]], [*theirs[:at], *theirs[at + 1 :]], self._config)
        if self._has_features:
            loss = loss + self._config.features * difference(features, references, mask)
        return loss

    def _fetch(self, indices: Sequence[int], source: torch.Generator) -> Batch:
        samples = self._course.samples
        if isinstance(samples, DrawnSamples):
            return Batch(*samples.drawn(indices, source))
        return fetch(samples, indices)

    def _prepare(self, batch: Batch, source: torch.Generator) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        first, *others = batch.inputs
        targets, original = batch.labels, self._course.original
        # Changing a noisy image would no longer fit the noise that was put in.
        if is_image(tuple(first.shape[1:])) and isinstance(self._course.task, Classification | MultiLabel):
            first = changed(first, self._config, source)
            judged = original.outputs[self._judged].shape
            if len(judged) == 1:
                first, targets = mixed_up(first, targets, judged[0], self._config)
        inputs = (first, *others)
        return tuple(map(self._devices.place, inputs)), targets.to(self._devices.device)

    def _batches(self) -> Iterator[Sequence[int]]:
        """Yields this process's part of full batches from the present step on, every sample once per epoch."""
        total = count(self._course.samples)
        size = min(self._config.batch, total)
        per_epoch = total // size
        while self._step < self._stretch.steps:
            epoch, at = divmod(self._step, per_epoch)
            order = torch.randperm(total, generator=generator(self._config.seed, "order", epoch)).tolist()
            for start in range(at * size, per_epoch * size, size):
                yield self._devices.share(order[start : start + size])
                if self._step >= self._stretch.steps:
                    return


def steps_per_epoch(samples: Samples, config: TuneConfig) -> int:
    """Returns how many steps see every sample once (a last partial batch is left out)."""
    return max(1, count(samples) // config.batch)
