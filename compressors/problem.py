"""What a strategy is given and what it gives back. The one contract that all strategies share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from compressors.analysis.segments import Analysis
from compressors.graph import Graph, TensorSpec
from compressors.memory import Memory, NoMemory
from compressors.plan import Plan
from compressors.precision import Precision

if TYPE_CHECKING:
    from compressors.tune.recipe import Recipe
    from compressors.tune.regulariser import Regulariser

Sample = tuple[tuple[torch.Tensor, ...], int | torch.Tensor]
"""One sample: the model's inputs without batch dimension, and its target.

The target is the class index, -1 where there is no label; or, where a sample may have several classes, a float32 vector
(classes,) of zeros and ones. All samples of a dataset have targets of one kind.
"""

Samples = Dataset[Sample]
"""A map-style dataset: `len()` and `[i]`. Preprocessing has been applied."""

NO_SAMPLES: Samples = TensorDataset()  # type: ignore[assignment]  # nothing is ever read from it
"""For questions that need none, such as how fast a network could get."""


@runtime_checkable
class BatchedSamples(Protocol):
    """Samples that can hand out a whole batch at once; offered for speed, reading one by one always works too."""

    def batch(self, indices: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Returns the stacked inputs, each (batch, ...), and the targets.

        These are class indices, int64 (batch,), -1 where there is none, or float32 (batch, classes) of zeros and ones.
        """
        ...


@dataclass(frozen=True)
class TimedOperator:
    """Something to time: a module as it will be emitted, and what it is fed.

    Attributes:
        key: Signature without weights. Two operators with the same key have the same latency.
        module: The operator, or a small graph of operators, in eval mode with norms folded.
        inputs: Its inputs, per sample.
    """

    key: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]


class Timer(Protocol):
    """The engine's only view of a device. `service/pipeline/pipeline.py` hands it deploy's."""

    def operators(self, operators: Sequence[TimedOperator]) -> list[float]:
        """Returns seconds per operator at the job's batch, dispatch overhead taken off."""
        ...

    def networks(self, networks: Sequence[tuple[nn.Module, tuple[TensorSpec, ...]]]) -> list[float]:
        """Returns seconds per whole network at the job's batch and percentile, timed interleaved."""
        ...


class Progress(Protocol):
    """Where a strategy says how far it is. May raise to stop the work (cancel, time limit)."""

    def __call__(self, fraction: float, message: str, metrics: Mapping[str, float] | None = None) -> None:
        """Report a fraction in [0, 1] of this phase, a message for people and figures known so far."""


class Trainer(Protocol):
    """How a strategy trains on the way; `service/pipeline/pipeline.py` hands it the job's recipe and limits."""

    def __call__(
        self,
        candidate: Graph,
        share: float,
        regulariser: Regulariser | None = None,
        seconds: float = math.inf,
        recipe: Recipe | None = None,
    ) -> Graph:
        """Returns the candidate after some training towards the original.

        Args:
            candidate: Where to start; not changed.
            share: Of the passes over the samples, and of the time, that the job has left for training, in (0, 1].
            regulariser: What shapes the training; with one, the last moment is returned and not the best.
            seconds: At most so long, whatever the share; none left returns the candidate as it is.
            recipe: How a paper trains, instead of the job's recipe; with one, the last moment is returned too.
        """
        ...


@dataclass(frozen=True)
class Score:
    """How good a network is on samples that decide (never the report's validation split).

    Attributes:
        divergence: Mean distance of its outputs from the original's; 0 is identical. For class scores the KL divergence
            (nats) of the probabilities, else the squared error relative to the original's variance.
        agreement: Fraction of decisions that are the original's; for outputs that decide nothing, the share of the
            original's variation that is reproduced.
        accuracy: Top-1 accuracy as a fraction, None where there are no class labels.
        samples: On how many samples.
        metric: The task's figure of merit, None where there are no targets; the accuracy where that is the figure.
        metric_name: What `metric` is, in the field's words.
        higher_is_better: Which way of `metric` is up.
    """

    divergence: float
    agreement: float
    accuracy: float | None
    samples: int
    metric: float | None = None
    metric_name: str = ""
    higher_is_better: bool = True

    @property
    def quality(self) -> float | None:
        """The figure of merit, turned so that higher is better; None where there are no targets."""
        figure = self.accuracy if self.metric is None else self.metric
        if figure is None:
            return None
        return figure if self.higher_is_better else -figure

    def better_than(self, other: Score) -> bool:
        """Returns whether this is the better score: by the figure of merit, or by divergence where that cannot tell."""
        if self.quality is not None and other.quality is not None and self.quality != other.quality:
            return self.quality > other.quality
        return self.divergence < other.divergence


class Search(Protocol):
    """One strategy at work on one problem. It keeps what it has learnt, so asking again is cheap."""

    def floor(self) -> Plan:
        """Returns the fastest plan there is; its measured `predicted_seconds` prove that less cannot be reached."""
        ...

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns networks fitted for a budget, best first: within it by divergence, then the others by latency."""
        ...


@runtime_checkable
class Staged(Protocol):
    """A search behind which others wait, that may use what time it leaves once its network has been trained."""

    def others(self, problem: Problem) -> Search | None:
        """Returns a search among what the others find, behind which more may wait; None where nobody does.

        Args:
            problem: The same as this search's, but for its clocks: they count what is left now.
        """
        ...


@dataclass(frozen=True)
class Candidate:
    """One network that was tried.

    Attributes:
        plan: How it was made.
        graph: The fitted graph, norms not yet folded, ready for fine-tuning or export.
        score: On the held-back samples.
        seconds: Whole-network latency measured on its structure, None where it was not measured.
        recipe: How a paper fine-tunes it; None is the job's recipe.
    """

    plan: Plan
    graph: Graph
    score: Score
    seconds: float | None
    recipe: Recipe | None = None


@dataclass(frozen=True)
class Problem:
    """Everything a strategy may use.

    Attributes:
        graph: The original.
        analysis: Its sites, chains and segments.
        budget_seconds: Latency to reach on the device, at the job's batch and percentile.
        baseline_seconds: The original's, measured the same way.
        calibration: Unlabelled samples for closed-form fits.
        selection: Samples that choices are made on; disjoint from calibration.
        timer: The device.
        progress: Where to report.
        seed: For everything random.
        seconds_left: Returns how long the strategy may still run; remembered like the rest, so that a search that was
            interrupted decides the same again.
        clock: The same, not remembered: for work whose result is remembered as a whole.
        train: Trains on the job's training samples; None where the job does not train.
        task: Name of what the network is for, of `compressors.tasks`; None to tell it by its outputs and targets.
        holds: Says whether a score is one that the job accepts (its accuracy floor).
        memory: What an earlier search on the same problem found out, and where this one keeps what it does.
        precision: What cuts and plans may be judged in, the faster the better; candidates are fitted and scored in
            float32.
    """

    graph: Graph
    analysis: Analysis
    budget_seconds: float
    baseline_seconds: float
    calibration: Samples
    selection: Samples
    timer: Timer
    progress: Progress
    seed: int
    seconds_left: Callable[[], float] = field(default=lambda: float("inf"))
    clock: Callable[[], float] = field(default=lambda: float("inf"))
    train: Trainer | None = None
    task: str | None = None
    holds: Callable[[Score], bool] = field(default=lambda _score: True)
    memory: Memory = field(default_factory=NoMemory)
    precision: Precision = "float32"
