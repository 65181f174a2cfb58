"""Accuracy of a model file, computed by running the file."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.errors import DataError
from deploy.machine import usable_cores
from deploy.runtimes import SessionSettings, find_runtime
from deploy.tensors import Array

_NORMAL_95 = 1.959963984540054
_TOP5_CLASSES = 10

Batch = tuple[tuple[Array, ...], Array]
"""The model's inputs, each (batch, *shape), and the class indices, (batch,)."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How accuracy is computed.

    Attributes:
        runtime: Registry name of the runtime.
        threads: Threads inside one operator; 0 takes every processor.
        device: What runs it, `cpu` or `cuda:N`.
    """

    runtime: str = "onnxruntime"
    threads: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Accuracy:
    """How often a model file is right.

    Attributes:
        top1: Fraction of samples whose largest output is the label.
        correct: Their number.
        n: Number of samples.
        ci_low: Lower end of the 95 % Wilson interval of `top1`.
        ci_high: Upper end.
        top5: Fraction of samples whose label is among the five largest outputs; None below ten classes.
        classes: Number of outputs per sample.
        non_finite: Samples with an output that is not a finite number; they count as wrong.
        seconds: Time spent in the model.
    """

    top1: float
    correct: int
    n: int
    ci_low: float
    ci_high: float
    top5: float | None
    classes: int
    non_finite: int
    seconds: float


def evaluate(
    path: Path, batches: Iterable[Batch], settings: EvaluationSettings | None = None, output: int = 0
) -> Accuracy:
    """Returns the accuracy of the model file on labelled samples; batches may differ in size.

    Args:
        path: A classifier.
        batches: Preprocessed inputs and labels.
        settings: How to run it.
        output: Which of its outputs has the class scores, shape (batch, classes).

    Raises:
        ModelFileError: If the file cannot be loaded.
        DataError: If there are no samples, or inputs or labels do not fit the model.
    """
    settings = settings or EvaluationSettings()
    threads = settings.threads or usable_cores()
    loading = SessionSettings(threads, device=settings.device)
    session = find_runtime(settings.runtime, settings.device).load(path, loading)
    ranks: list[NDArray[np.int64]] = []
    classes, seconds = 0, 0.0
    for inputs, labels in batches:
        start = time.perf_counter()
        logits = session.run(inputs)[output]
        seconds += time.perf_counter() - start
        _check(logits, labels)
        classes = logits.shape[1]
        ranks.append(_ranks(logits, labels))
    if not ranks:
        msg = "there are no samples to compute the accuracy on"
        raise DataError(msg)
    return _accuracy(np.concatenate(ranks), classes, seconds)


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval of a fraction (Wilson 1927).

    Args:
        correct: Successes, 0 to n.
        n: Trials, at least 1.
    """
    share, z2 = correct / n, _NORMAL_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def _accuracy(ranks: NDArray[np.int64], classes: int, seconds: float) -> Accuracy:
    n, correct = int(ranks.size), int((ranks == 0).sum())
    low, high = wilson(correct, n)
    return Accuracy(
        top1=correct / n,
        correct=correct,
        n=n,
        ci_low=low,
        ci_high=high,
        top5=float(((ranks >= 0) & (ranks < 5)).mean()) if classes >= _TOP5_CLASSES else None,
        classes=classes,
        non_finite=int((ranks < 0).sum()),
        seconds=seconds,
    )


def _ranks(logits: Array, labels: Array) -> NDArray[np.int64]:
    """Returns how many outputs come before the label's, (batch,); -1 where an output is not a finite number."""
    rows = np.arange(len(labels))
    own = logits[rows, labels][:, None]
    # Of equal outputs the first counts as larger, as argmax has it.
    earlier = np.arange(logits.shape[1])[None, :] < labels.astype(np.int64)[:, None]
    ranks = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return np.where(np.isfinite(logits).all(axis=1), ranks, -1).astype(np.int64)


def _check(logits: Array, labels: Array) -> None:
    if logits.ndim != 2:
        msg = f"accuracy needs an output of shape (batch, classes), the model gives {logits.shape}"
        raise DataError(msg)
    if labels.shape != (len(logits),) or not np.issubdtype(labels.dtype, np.integer):
        msg = f"labels must be {len(logits)} whole numbers, one per sample, got shape {labels.shape} of {labels.dtype}"
        raise DataError(msg)
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        msg = f"labels go from {labels.min()} to {labels.max()}, but the model knows classes 0 to {logits.shape[1] - 1}"
        raise DataError(msg)
