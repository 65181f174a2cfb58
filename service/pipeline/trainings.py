"""A job's trainings: how many passes and how much time each gets, and where one that was interrupted goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from compressors.batches import count
from compressors.graph import Graph
from compressors.memory import Memory, key_of, remembered
from compressors.problem import Progress, Samples
from compressors.signature import fingerprint
from compressors.tune import TuneConfig, Tuned, tune
from compressors.tune.optimise import lowest_rate
from compressors.tune.recipe import Recipe
from compressors.tune.regulariser import Regulariser
from service.judging.quality import Goal
from service.pipeline.phases import Phases
from service.resuming.journal import TRAININGS
from service.worker.messages import WorkOrder

TUNING_SHARE = 0.9
"""Of the time that is left after planning, the part that one fine-tuning may use; it leaves `SPARE_SECONDS` at most."""

SPARE_SECONDS = 20.0
"""What a last scoring may take longer than expected. A tenth of the time was two minutes in jobs of half an hour, and
nobody used them."""

TUNING_SHARE_WITH_FLOOR = 0.6
"""The part where an accuracy floor may ask for a second network."""

_NORM_BATCHES = 8
"""On so many batches the moments of batch norms are estimated anew before a training; kept where that is better. Not
where gates were put in: the network is the one that it was."""

_SAVED_ON_THE_WAY = 2
"""Times that a training whose end is returned is scored, and saved to go on from: nothing is chosen by the scores."""

_SHORT_WITH_GATES = 120.0
"""Seconds below which a training with gates tries no rates: while gates close scores fall, and the lowest wins."""

_LEAST_WITH_GATES = 16
"""Steps below which gates say nothing of the activations that they belong to: such a training is left out."""

_MOMENT = 1e-3
"""Of a training that has used up its time."""


@dataclass(frozen=True)
class _Grant:
    """What one training may use.

    Attributes:
        training: Key of the training in the job's memory.
        folder: Name of its checkpoint's.
        epochs: Passes over the samples.
        seconds: From now on; 0 where there is no time.
        granted: Seconds when it was begun.
    """

    training: str
    folder: str
    epochs: float
    seconds: float
    granted: float


@dataclass(frozen=True)
class _Way:
    """How one training goes, besides what the job asks for.

    Attributes:
        regulariser: What shapes it.
        recipe: How a paper trains, instead of the job's recipe.
        last: Whether its end is returned; else its best moment.
        norms: Whether the moments of batch norms may be estimated anew before it.
    """

    regulariser: Regulariser | None = None
    recipe: Recipe | None = None
    last: bool = False
    norms: bool = True


@dataclass(frozen=True)
class Trainings:
    """Trains the networks of one job.

    A network has seen the samples at most as often as was asked for, what was trained on the way to it included: a
    training on the way uses passes up, and a fine-tuning gets what is left. Fine-tunings of one job are of networks
    that stand for each other, and take nothing from the next.

    Attributes:
        original: The teacher.
        samples: Training samples.
        selection: Samples that moments and rates are chosen by.
        order: Recipe, seed, and the folder that checkpoints lie in.
        goal: What counts; a floor leaves time for a second network.
        memory: What earlier trainings were granted.
        phases: The job's clock, and where its progress goes.
        reserve: Returns the seconds of the time limit that are kept back.
        used: Passes of the trainings on the way so far, by training.
    """

    original: Graph
    samples: Samples
    selection: Samples
    order: WorkOrder
    goal: Goal
    memory: Memory
    phases: Phases
    reserve: Callable[[], float]
    used: dict[str, float] = field(default_factory=dict)

    @property
    def wanted(self) -> bool:
        """Whether the job trains at all."""
        asked = self.order.spec.fine_tuning
        return not asked.disabled and asked.epochs > 0 and count(self.samples) > 0

    @property
    def epochs_left(self) -> float:
        """Passes that were asked for, less those of trainings on the way."""
        return max(0.0, self.order.spec.fine_tuning.epochs - sum(self.used.values()))

    def on_the_way(
        self,
        candidate: Graph,
        share: float,
        regulariser: Regulariser | None = None,
        seconds: float = math.inf,
        recipe: Recipe | None = None,
    ) -> Graph:
        """Trains a network that is on its way to a candidate (`compressors.problem.Trainer`)."""

        def told(fraction: float, message: str, metrics: Mapping[str, float] | None = None) -> None:  # noqa: ARG001
            self.phases(0.0, f"training on the way: {message}", metrics)

        grant = self._granted(candidate, share, seconds)
        way = _Way(regulariser, recipe, last=regulariser is not None or recipe is not None)
        tuned = self._trained(candidate, grant, told, way)
        if tuned is None:
            return candidate
        done = tuned.history[-1].epoch if tuned.history else 0.0
        # The least that is trained is a step, which may be more than was granted; that must not stop the trainings.
        self.used[grant.training] = min(done, grant.epochs)
        return tuned.graph

    def fine_tuned(
        self, candidate: Graph, progress: Progress, *, refitted: bool = False, recipe: Recipe | None = None
    ) -> Tuned | None:
        """Fine-tunes a network with the passes that are left; None where there is no time.

        Args:
            candidate: Where to start.
            progress: Where to report.
            refitted: Whether its operators were refitted after the cuts, the moments of its norms with them.
            recipe: How a paper trains, instead of the job's recipe.
        """
        way = _Way(recipe=recipe, norms=not refitted)
        return self._trained(candidate, self._granted(candidate, 1.0), progress, way)

    def _granted(self, network: Graph, share: float, seconds: float = math.inf) -> _Grant:
        """Returns what a training may use; one that was begun before, the passes and what is left of the time then."""

        def grant() -> dict[str, float]:
            left = self.phases.seconds_left(self.reserve())
            most = TUNING_SHARE_WITH_FLOOR * left
            if self.goal.floor is None:
                most = max(TUNING_SHARE * left, left - SPARE_SECONDS)
            time = min(seconds, share * most)
            return {"seconds": time, "begun": self.phases.elapsed, "epochs": share * self.epochs_left}

        name = fingerprint(network)
        key = key_of("training", name, share)
        got = remembered(self.memory, key, ["seconds", "begun", "epochs"], grant)
        # It was begun, so it is called again even when its time is over: it has a result, and returns that.
        left = max(got["seconds"] - (self.phases.elapsed - got["begun"]), min(got["seconds"], _MOMENT))
        # A network may be trained twice, on the way and as what ships: each has a checkpoint of its own.
        return _Grant(key, key.rpartition(" ")[2][:16], got["epochs"], max(0.0, left), got["seconds"])

    def _trained(
        self,
        network: Graph,
        grant: _Grant,
        progress: Progress,
        way: _Way,
    ) -> Tuned | None:
        """Trains a network; goes on where a worker that died had come to with the same network."""
        if grant.seconds <= 0 or grant.epochs <= 0:
            return None
        asked = self.order.spec.fine_tuning
        config = TuneConfig(
            task=self.goal.task.name,
            epochs=grant.epochs,
            batch=asked.batch or TuneConfig.batch,
            max_seconds=grant.seconds,
            seed=self.order.spec.seed,
            checkpoint=self.order.folder / TRAININGS / grant.folder,
            regulariser=way.regulariser,
            keep="last" if way.last else "best",
            patience=0 if way.last else asked.patience,
            evaluations=_SAVED_ON_THE_WAY if way.last else TuneConfig.evaluations,
            least_steps=1 if way.regulariser is None else _LEAST_WITH_GATES,
            norm_batches=_NORM_BATCHES if way.norms and way.regulariser is None else 0,
        )
        if way.recipe is not None:
            config = way.recipe.applied(config, batch=asked.batch, rate=asked.learning_rate)
        elif asked.learning_rate is not None:
            config = replace(config, learning_rates=(asked.learning_rate,))
        elif way.regulariser is not None and grant.granted < _SHORT_WITH_GATES:
            config = replace(config, learning_rates=(lowest_rate(network.module, config),))
        return tune(self.original, network, self.samples, self.selection, config, progress)
