"""What a strategy is given and what it gives back. The one contract that all strategies share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from compressors.analysis.segments import Analysis
from compressors.graph import Graph, TensorSpec
from compressors.plan import Plan

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
    """The engine's only view of a device. `service/pipeline.py` hands it deploy's."""

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


@dataclass(frozen=True)
class Score:
    """How good a network is on samples that decide (never the report's validation split).

    Attributes:
        divergence: Mean KL divergence (nats) of its class probabilities from the original's; 0 is identical.
        agreement: Fraction of samples on which its top-1 is the original's.
        accuracy: Top-1 accuracy as a fraction, None where there are no labels.
        samples: On how many samples.
    """

    divergence: float
    agreement: float
    accuracy: float | None
    samples: int


class Search(Protocol):
    """One strategy at work on one problem. It keeps what it has learnt, so asking again is cheap."""

    def floor(self) -> Plan:
        """Returns the fastest plan there is; its measured `predicted_seconds` prove that less cannot be reached."""
        ...

    def candidates(self, budget_seconds: float) -> Sequence[Candidate]:
        """Returns networks fitted for a budget, best first: within it by divergence, then the others by latency."""
        ...


@dataclass(frozen=True)
class Candidate:
    """One network that was tried.

    Attributes:
        plan: How it was made.
        graph: The fitted graph, norms not yet folded, ready for fine-tuning or export.
        score: On the held-back samples.
        seconds: Whole-network latency measured on its structure, None where it was not measured.
    """

    plan: Plan
    graph: Graph
    score: Score
    seconds: float | None


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
        seconds_left: Returns how long the strategy may still run.
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
