"""Short fine-tuning: find a rate that does not destroy the start, train, keep the best, never return worse."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from compressors.errors import OptionError
from compressors.score import Reference
from compressors.tune.precision import Precision, bring_back
from compressors.tune.training import Moment, Stretch, Training, steps_per_epoch

if TYPE_CHECKING:
    from torch import fx

    from compressors.graph import Graph
    from compressors.problem import Progress, Samples, Score
    from compressors.tune.config import TuneConfig

_SEARCH_SHARE = 0.15
"""Of the whole time limit, at most this much goes into the choice of the rate."""
_LONG = 4
"""A training of this many trials' steps has time to gain from a rate that a trial cannot."""
_HARMLESS = 1.1
"""A trial that leaves at most this many times the start's divergence has not destroyed the start."""


@dataclass(frozen=True)
class Checkpoint:
    """One scoring during the training.

    Attributes:
        step: Steps done.
        epoch: Passes done.
        loss: Mean training loss over the last steps.
        score: On the held-back samples.
        seconds: Since the training began.
    """

    step: int
    epoch: float
    loss: float
    score: Score
    seconds: float


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned network.

    Attributes:
        graph: The best that was seen, the start included.
        before: Score of the start.
        after: Score of `graph`; never worse than `before`.
        history: Every scoring, in order.
        learning_rate: Peak rate that was chosen.
        trials: Held-back divergence after a short trial of each rate that was tried.
        precision: What products were computed in, `float32` or `bfloat16`.
    """

    graph: Graph
    before: Score
    after: Score
    history: tuple[Checkpoint, ...]
    learning_rate: float
    trials: dict[float, float]
    precision: str

    @property
    def improved(self) -> bool:
        """Whether training found anything better than the start; if not, `graph` is the start."""
        return better(self.after, self.before)


def tune(
    original: Graph, candidate: Graph, train: Samples, holdout: Samples, config: TuneConfig, progress: Progress
) -> Tuned:
    """Returns the candidate after a short training towards the original's outputs, and labels where there are some.

    Args:
        original: The teacher.
        candidate: Where to start; not changed.
        train: Samples to train on.
        holdout: Samples to choose by: the rate, and the best moment. Best is the highest accuracy where there are
            labels, else the lowest divergence.
        config: Limits and recipe.
        progress: Told step, epoch, loss, held-back accuracy and seconds left; may raise to stop.

    Raises:
        OptionError: There are no training samples.
    """
    from compressors.batches import count

    if count(train) == 0:
        raise OptionError("data", "Fine-tuning needs training samples; got none.")
    return _Run(original, candidate, train, holdout, config, progress).result()


@final
class _Run:
    def __init__(
        self,
        original: Graph,
        candidate: Graph,
        train: Samples,
        holdout: Samples,
        config: TuneConfig,
        progress: Progress,
    ) -> None:
        self._original, self._candidate, self._train = original, candidate, train
        self._config, self._progress = config, progress
        self._started = time.monotonic()
        self._reference = Reference.of(original, holdout, config.holdout_samples)
        self._trial_reference = Reference.of(original, holdout, config.trial_samples)
        self._per_epoch = steps_per_epoch(train, config)
        self._steps = max(1, round(config.epochs * self._per_epoch))
        self._long = self._steps >= _LONG * config.trial_steps
        self._harmless = _HARMLESS * self._trial_reference.score(candidate.module).divergence
        self._before = self._reference.score(candidate.module)
        self._best = self._before
        self._best_weights = deepcopy(candidate.module.state_dict())
        self._history: list[Checkpoint] = []
        self._done = 0.0

    def result(self) -> Tuned:
        trials = self._trials()
        peak = self._chosen(trials) if trials else self._config.learning_rates[0]
        student = self._candidate.copied()
        training = Training(student.module, self._original, self._train, self._config)
        left = max(self._config.max_seconds - (time.monotonic() - self._started), 1e-3)
        training.run(Stretch(self._steps, left, peak), lambda moment: self._after_step(moment, student.module, left))
        bring_back(student.module)
        student.module.load_state_dict(self._best_weights)
        precision = Precision.choose(self._config.device, self._config.reduced_precision).name
        return Tuned(student, self._before, self._best, tuple(self._history), peak, trials, precision)

    def _chosen(self, trials: dict[float, float]) -> float:
        """Returns the rate of the least divergence; in a long training, the first that has done no harm.

        A low rate looks best after a few steps and falls behind later: on a ResNet-20 with three cuts, 40 steps at 0.01
        left the divergence where it was and lower rates lowered it, but two epochs at 0.01 gave 90.5 % on the test
        images, at 0.003 90.0 %, and at 0.03, which more than doubled the divergence in the trial, 90.3 %.
        """
        if self._long:
            for peak in sorted(trials, reverse=True):
                if trials[peak] <= self._harmless:
                    return peak
        return min(trials, key=lambda peak: trials[peak])

    def _trials(self) -> dict[float, float]:
        """Returns the held-back divergence that a few steps at each rate lead to, from the highest rate down."""
        rates = sorted(self._config.learning_rates, reverse=True)
        if len(rates) == 1:
            return {}
        seconds = self._config.max_seconds * _SEARCH_SHARE / len(rates)
        found = {}
        for index, peak in enumerate(rates):
            self._done = 0.1 * index / len(rates)
            self._progress(self._done, f"trying learning rate {peak:g}")
            student = self._candidate.copied()
            training = Training(student.module, self._original, self._train, self._config)
            training.run(Stretch(min(self._config.trial_steps, self._steps), seconds, peak), self._during_trial)
            bring_back(student.module)
            score = self._trial_reference.score(student.module)
            found[peak] = score.divergence
            if self._long and score.divergence <= self._harmless:
                break
        return found

    def _during_trial(self, moment: Moment) -> None:
        self._progress(self._done, f"trying learning rates, step {moment.step}", {"loss": moment.loss})

    def _after_step(self, moment: Moment, student: fx.GraphModule, limit: float) -> None:
        done = moment.progress
        due = len(self._history) + 1
        wanted = max(self._config.evaluations, round(self._steps / self._per_epoch))
        if done >= due / wanted or done >= 1:
            self._evaluate(moment, student)
        epoch = moment.step / self._per_epoch
        total = min(limit, moment.seconds / max(done, 1e-9))
        metrics = {
            "step": float(moment.step),
            "epoch": epoch,
            "loss": moment.loss,
            "seconds_left": max(0.0, total - moment.seconds),
            "holdout_agreement": self._best.agreement,
        }
        if self._best.accuracy is not None:
            metrics["holdout_accuracy"] = self._best.accuracy
        self._progress(0.1 + 0.9 * done, f"epoch {epoch:.2f} of {self._config.epochs:g}", metrics)

    def _evaluate(self, moment: Moment, student: fx.GraphModule) -> None:
        judged = deepcopy(student)
        bring_back(judged)
        score = self._reference.score(judged)
        self._history.append(Checkpoint(moment.step, moment.step / self._per_epoch, moment.loss, score, moment.seconds))
        if better(score, self._best):
            self._best = score
            self._best_weights = judged.state_dict()


def better(one: Score, other: Score) -> bool:
    """Returns whether `one` is the better score: higher accuracy, or lower divergence where there are no labels."""
    if one.accuracy is not None and other.accuracy is not None and one.accuracy != other.accuracy:
        return one.accuracy > other.accuracy
    return one.divergence < other.divergence
