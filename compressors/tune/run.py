"""Short fine-tuning: find a rate that does not destroy the start, train, keep the best, never return worse."""

from __future__ import annotations

import math
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, final

from compressors.batches import count
from compressors.errors import OptionError
from compressors.problem import Score
from compressors.score import Reference
from compressors.tasks import noised
from compressors.tune import checkpoint
from compressors.tune.devices import Devices, bring_back
from compressors.tune.group import GroupError, Work, group_size, tune_in_group
from compressors.tune.holdout import split
from compressors.tune.norms import reestimate
from compressors.tune.optimise import choose_optimizer, learning_rates
from compressors.tune.rates import Rates
from compressors.tune.training import Course, Moment, Stretch, Training, steps_per_epoch

if TYPE_CHECKING:
    from torch import nn

    from compressors.graph import Graph
    from compressors.problem import Progress, Samples
    from compressors.tune.config import TuneConfig

_SCORING_SHARE = 0.2
"""Of a time limit, what scoring the held-back samples may take; fewer are taken where that is not enough."""
_NORMS_SHARE = 0.05
"""Of a time limit, what estimating the moments of batch norms anew may take."""
_TIMED_ON = 128
"""Held-back samples that tell how long a scoring takes; never fewer are taken, if there are as many."""
_TELLING = 2
"""Steps that tell how many there will be."""
_SEARCH_PROGRESS = 0.1
"""Share of the progress that the choice of a rate takes."""


@dataclass(frozen=True)
class Checkpoint:
    """One scoring during the training.

    Attributes:
        step: Steps done.
        epoch: Passes done.
        loss: Mean training loss over the last steps.
        score: On the held-back samples, of the better of the weights and their average.
        seconds: Since the training began.
        finite: Whether weights and outputs were finite; if not, the training has diverged, and they are not kept.
    """

    step: int
    epoch: float
    loss: float
    score: Score
    seconds: float
    finite: bool = True


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned network.

    Attributes:
        graph: The best that was seen, the start included; the last that was finite where the config keeps the last.
        before: Score of the start.
        after: Score of `graph`; never worse than `before` unless the last is kept.
        history: Every scoring, in order.
        learning_rate: Peak rate that was chosen.
        trials: Held-back divergence after a short trial of each rate that was tried.
        precision: What products were computed in: `float32`, `bfloat16` or `float16`.
        optimizer: `sgd` or `adamw`.
        task: What the network was trained for, a name of `compressors.tasks.TASKS`.
    """

    graph: Graph
    before: Score
    after: Score
    history: tuple[Checkpoint, ...]
    learning_rate: float
    trials: dict[float, float]
    precision: str
    optimizer: str = "sgd"
    task: str = "classification"

    @property
    def improved(self) -> bool:
        """Whether training found anything better than the start; if not, `graph` is the start."""
        return better(self.after, self.before)

    @property
    def diverged(self) -> bool:
        """Whether training ended in numbers that are not finite; `graph` is from before that then."""
        return bool(self.history) and not self.history[-1].finite


def tune(
    original: Graph, candidate: Graph, train: Samples, holdout: Samples | None, config: TuneConfig, progress: Progress
) -> Tuned:
    """Returns the candidate after a short training towards the original's outputs, and targets where there are some.

    Args:
        original: The teacher.
        candidate: Where to start; not changed.
        train: Samples to train on. A denoiser's may be clean images: noise is put in here.
        holdout: Samples to choose by: the rate, and the best moment. Best is by the task's figure of merit where there
            are targets, else the lowest divergence. None holds back a share of `train`.
        config: Limits and recipe.
        progress: Told step, epoch, loss, held-back figures and seconds left; may raise to stop.

    Raises:
        OptionError: There are no training samples, or the task cannot be told.
    """
    if count(train) == 0:
        raise OptionError("data", "Fine-tuning needs training samples; got none.")
    processes = group_size(config)
    if processes > 1:
        try:
            return tune_in_group(Work(original, candidate, train, holdout, config), processes, progress)
        except GroupError as exc:
            # Slower is better than not at all.
            progress(0.0, f"training in one process: {exc}")
    if holdout is None:
        train, holdout = split(train, config.holdout_share, config.holdout_samples, config.seed)
    train, holdout = (noised(original, samples, config.noise, config.seed) for samples in (train, holdout))
    return _Run(original, candidate, (train, holdout), config, progress).result()


@final
class _Run:
    def __init__(
        self, original: Graph, candidate: Graph, data: tuple[Samples, Samples], config: TuneConfig, progress: Progress
    ) -> None:
        train, holdout = data
        self._config, self._progress, self._candidate = config, progress, candidate
        self._started = time.monotonic()
        self._devices = Devices(config.device, config.precision)
        self._saved: dict[str, Any] = {}
        if config.checkpoint is not None:
            print_ = checkpoint.fingerprint(original, candidate, count(train), config)
            self._saved = checkpoint.load(config.checkpoint, print_) or {"fingerprint": print_}
        placed = self._devices.placed(original)
        limit = self._affordable(placed, holdout)
        self._reference = Reference.of(placed, holdout, limit, task=config.task)
        self._course = Course(original, train, self._reference.task, config, self._devices)
        self._optimizer = choose_optimizer(candidate.module, config)
        self._per_epoch = steps_per_epoch(train, config)
        self._steps = max(1, round(config.epochs * self._per_epoch))
        self._before = self._reference.score(self._devices.placed(candidate).module)
        self._start, self._best = self._first()
        self._best_weights = deepcopy(self._start.module.state_dict())
        self._history: list[Checkpoint] = []
        self._since_best = 0
        self._tried = 0.0

    def result(self) -> Tuned:
        rates = Rates(self._course, self._start, self._reference, self._steps)
        trials = self._trials(rates)
        peak = rates.chosen(trials) if trials else learning_rates(self._optimizer, self._config)[0]
        peak = self._devices.agree(peak)
        student = self._start.copied()
        left = max(self._config.max_seconds - (time.monotonic() - self._started), 1e-3)
        earlier = self._saved.get("training")
        stretch = Stretch(self._steps, left + (earlier["seconds"] if earlier else 0.0), peak)
        self._training = Training(student.module, self._course, stretch)
        if earlier:
            self._resume(earlier)
        self._limit = stretch.seconds
        if not self._over(earlier):
            self._training.run(self._after_step)
        bring_back(student.module)
        found = self._devices.agree((self._best, self._best_weights, self._history))
        self._best, self._best_weights, self._history = found
        student.module.load_state_dict(self._best_weights)
        return Tuned(
            graph=student,
            before=self._before,
            after=self._best,
            history=tuple(self._history),
            learning_rate=peak,
            trials=trials,
            precision=self._devices.precision,
            optimizer=self._optimizer,
            task=self._reference.task.name,
        )

    def _affordable(self, placed: Graph, holdout: Samples) -> int:
        """Returns how many held-back samples each scoring takes, so that all of them fit into their share of the time.

        A resumed training scores on as many as before.
        """
        config, most = self._config, min(self._config.holdout_samples, count(holdout))
        if math.isinf(config.max_seconds) or most <= _TIMED_ON:
            return most
        if "holdout" not in self._saved:
            started = time.monotonic()
            few = Reference.of(placed, holdout, _TIMED_ON, task=config.task)
            few.score(self._devices.placed(self._candidate).module)
            each = (time.monotonic() - started) / (2 * _TIMED_ON)
            scorings = 2 + config.evaluations
            fitting = int(_SCORING_SHARE * config.max_seconds / (scorings * each))
            self._saved["holdout"] = self._devices.agree(max(_TIMED_ON, min(most, fitting)))
        return int(self._saved["holdout"])

    def _first(self) -> tuple[Graph, Score]:
        """Returns the candidate, with its batch norms estimated anew where that is asked for and better."""
        if self._config.norm_batches > 0:
            placed = self._devices.placed(self._candidate)
            seconds = _NORMS_SHARE * self._config.max_seconds
            anew = reestimate(placed, self._course.samples, self._config.norm_batches, seconds=seconds)
            score = self._reference.score(anew.module)
            bring_back(anew.module)
            if better(score, self._before):
                return anew, score
        return self._candidate, self._before

    def _trials(self, rates: Rates) -> dict[float, float]:
        trials: dict[float, float] = dict(self._saved.get("trials", {}))
        for peak in rates.left(trials):
            self._tried = _SEARCH_PROGRESS * len(trials) / rates.most
            if self._devices.main:
                self._progress(self._tried, f"trying learning rate {peak:g}")
            trials[peak] = self._devices.agree(rates.trial(peak, self._during_trial))
            self._save({"trials": trials})
        return trials

    def _during_trial(self, moment: Moment) -> bool:
        self._progress(self._tried, f"trying learning rates, step {moment.step}", {"loss": moment.loss})
        return True

    def _after_step(self, moment: Moment) -> bool:
        least = min(self._config.least_steps, self._steps)
        if moment.step <= _TELLING and moment.step / moment.progress < least:
            # The first step alone says little: much is done once.
            return moment.step < _TELLING and moment.progress < 1
        due = len(self._history) + 1
        # One for each pass that there will be: time may end the training long before the last that was asked for.
        passes = moment.step / moment.progress / self._per_epoch
        wanted = max(self._config.evaluations, round(passes))
        if moment.progress >= due / wanted or moment.progress >= 1:
            self._evaluate(moment)
        fraction = _SEARCH_PROGRESS + (1 - _SEARCH_PROGRESS) * moment.progress
        self._progress(fraction, self._told(moment), self._metrics(moment))
        return not self._config.patience or self._since_best < self._config.patience

    def _metrics(self, moment: Moment) -> dict[str, float]:
        """Returns step, epoch, loss, the held-back figures so far, and the time left."""
        total = min(self._limit, moment.seconds / max(moment.progress, 1e-9))
        best = self._best
        metrics = {
            "step": float(moment.step),
            "epoch": moment.step / self._per_epoch,
            "loss": moment.loss,
            "learning_rate": moment.rate,
            "seconds_left": max(0.0, total - moment.seconds),
            "holdout_agreement": best.agreement,
        }
        if best.accuracy is not None:
            metrics["holdout_accuracy"] = best.accuracy
        elif best.metric is not None:
            metrics["holdout_" + best.metric_name.replace(" ", "_").replace("-", "_")] = best.metric
        if self._config.regulariser is not None:
            metrics |= self._config.regulariser.metrics(next(self._training.competitors()))
        return metrics

    def _evaluate(self, moment: Moment) -> None:
        """Scores what the training has to offer, notes the better, keeps it if it is the best so far, and saves."""
        scored = []
        for module in self._training.competitors():
            judged = deepcopy(module).eval()
            scored.append((self._reference.score(judged), judged))
        score, judged = scored[0]
        for other, average in scored[1:]:
            if better(other, score):
                score, judged = other, average
        epoch = moment.step / self._per_epoch
        finite = self._is_finite(judged, score)
        self._history.append(Checkpoint(moment.step, epoch, moment.loss, score, moment.seconds, finite))
        self._since_best += 1
        if finite and (better(score, self._best) or self._config.keep == "last"):
            bring_back(judged)
            self._best, self._best_weights, self._since_best = score, judged.state_dict(), 0
        self._save(
            {
                "training": self._training.state(moment.seconds),
                "history": [asdict(entry) for entry in self._history],
                "best": asdict(self._best),
                "best_weights": self._best_weights,
                "since_best": self._since_best,
            }
        )

    def _is_finite(self, judged: nn.Module, score: Score) -> bool:
        """Returns whether a network is one to keep: its weights are finite, and its outputs where the start's are."""
        weights = all(bool(parameter.isfinite().all()) for parameter in judged.parameters())
        return weights and (math.isfinite(score.divergence) or not math.isfinite(self._before.divergence))

    def _told(self, moment: Moment) -> str:
        """Returns what is going on, for people."""
        done = f"epoch {moment.step / self._per_epoch:.2f} of {self._config.epochs:g}, step {moment.step}"
        if not self._history or self._history[-1].finite:
            return done
        kept = max((entry.step for entry in self._history if entry.finite), default=0)
        rate = f"learning rate {moment.rate:g}"
        return f"{done}: the training diverged at {rate}; going back to step {kept}. Ask for a lower learning rate"

    def _save(self, news: dict[str, Any]) -> None:
        if self._config.checkpoint is not None and self._devices.main:
            self._saved |= news
            checkpoint.save(self._config.checkpoint, self._saved)

    def _resume(self, earlier: dict[str, Any]) -> None:
        self._training.resume(earlier)
        self._history = [Checkpoint(**(entry | {"score": Score(**entry["score"])})) for entry in self._saved["history"]]
        self._best, self._best_weights = Score(**self._saved["best"]), self._saved["best_weights"]
        self._since_best = self._saved["since_best"]

    def _over(self, earlier: dict[str, Any] | None) -> bool:
        """Returns whether an earlier process came to the end and only its result is missing."""
        if earlier is None:
            return False
        stopped = bool(self._config.patience) and self._since_best >= self._config.patience
        return stopped or earlier["progress"] >= 1


def better(one: Score, other: Score) -> bool:
    """Returns whether `one` is the better score: by the task's figure of merit, else by divergence."""
    return one.better_than(other)
