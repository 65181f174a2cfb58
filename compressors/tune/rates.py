"""The choice of a learning rate that does not destroy a good start: a few steps at each, judged on held-back data."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, final

from compressors.tune.optimise import choose_optimizer, learning_rates
from compressors.tune.training import Course, Moment, Stretch, Training

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from compressors.graph import Graph
    from compressors.score import Reference

_SEARCH_SHARE = 0.15
"""Of the whole time limit, at most this much goes into the choice of the rate."""
_LONG = 4
"""A training of this many trials' steps has time to gain from a rate that a trial cannot."""
_REPAIRED = 2.4
"""A trial that leaves at most this many times the start's divergence does harm that a long training repairs."""
_VERY_LONG = 25
"""A training of this many trials' steps repairs more."""
_REPAIRED_THEN = 4.0
"""As `_REPAIRED`, in such a training."""


@final
class Rates:
    """Peak rates and what a short trial of each leads to.

    Args:
        course: Teacher, data and recipe.
        start: What every trial begins with; not changed.
        reference: The original's outputs on held-back samples; the first `trial_samples` are used.
        steps: Of the training that the rate is for.
    """

    def __init__(self, course: Course, start: Graph, reference: Reference, steps: int) -> None:
        self._course, self._start = course, start
        self._reference = _first(reference, course.config.trial_samples)
        self._rates = learning_rates(choose_optimizer(start.module, course.config), course.config)
        self._steps = min(course.config.trial_steps, steps)
        self._share = self._steps / steps
        self._long = steps >= _LONG * course.config.trial_steps
        self._most_harm = _REPAIRED_THEN if steps >= _VERY_LONG * course.config.trial_steps else _REPAIRED

    @cached_property
    def _repairable(self) -> float:
        """Divergence up to which a long training repairs what a trial did; worked out only where a trial asks."""
        return self._most_harm * self._reference.score(self._course.devices.placed(self._start).module).divergence

    @property
    def most(self) -> int:
        """How many rates there are to try."""
        return len(self._rates)

    def left(self, trials: Mapping[float, float]) -> Iterator[float]:
        """Yields the rates still to try, from the highest down, as `trials` fills; none where there is no choice."""
        for peak in self._rates if len(self._rates) > 1 else ():
            if peak not in trials:
                yield peak
            if self._long and trials[peak] <= self._repairable:
                return

    def trial(self, peak: float, after_step: Callable[[Moment], bool]) -> float:
        """Returns the held-back divergence after a few steps at this rate."""
        seconds = self._course.config.max_seconds * _SEARCH_SHARE / len(self._rates)
        student = self._start.copied()
        Training(student.module, self._course, Stretch(self._steps, seconds, peak, self._share)).run(after_step)
        return self._reference.score(student.module).divergence

    def chosen(self, trials: Mapping[float, float]) -> float:
        """Returns the rate of the least divergence; in a long training, the highest whose harm it repairs.

        Where every trial ended in numbers that are not finite, it is the lowest rate that was tried.

        A low rate looks best after a few steps and falls behind later, also where a higher one does harm at first:
        eleven steps at 0.03 left a VGG-16 with twice the divergence, and 200 steps took it from 84.7 to 86.0 % of the
        test images; at 0.001 they left it where it was, and it came to 84.6 %. Of a ResNet-20 they left 10 times the
        divergence at 0.03, which 200 steps did not repair, and 1.3 times at 0.01, with which it gained most.
        Thousands of steps repair more: forty at 0.01 left 2.9 times the divergence, and 2,300 came to 89.9 % of the
        test images, at 0.003 (1.1) to 89.4.
        """
        if self._long:
            for peak in sorted(trials, reverse=True):
                if trials[peak] <= self._repairable:
                    return peak
        finite = [peak for peak in trials if math.isfinite(trials[peak])]
        return min(finite, key=lambda peak: trials[peak]) if finite else min(trials)


def _first(reference: Reference, most: int) -> Reference:
    """Returns the reference on its first samples."""
    mask = None if reference.mask is None else reference.mask[:most]
    outputs = tuple(each[:most] for each in reference.outputs)
    return replace(reference, outputs=outputs, labels=reference.labels[:most], mask=mask)
