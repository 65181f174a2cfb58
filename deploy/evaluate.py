"""Accuracy of a model file, computed by running the file."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.bench import Bench, Feed, LocalBench
from deploy.errors import DataError
from deploy.tensors import Array

_NORMAL_95 = 1.959963984540054
_TOP5_CLASSES = 10
_HERE = LocalBench()

Batch = tuple[tuple[Array, ...], Array]
"""The model's inputs, each (batch, *shape), and the class indices, (batch,)."""


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
    """

    top1: float
    correct: int
    n: int
    ci_low: float
    ci_high: float
    top5: float | None
    classes: int
    non_finite: int


def evaluate(
    path: Path,
    batches: Iterable[Batch],
    bench: Bench = _HERE,
    output: int = 0,
    threads: int = 0,
) -> Accuracy:
    """Returns the accuracy of the model file on labelled samples; batches may differ in size.

    Args:
        path: A classifier.
        batches: Preprocessed inputs and labels.
        bench: Where it runs.
        output: Which of its outputs has the class scores, shape (batch, classes).
        threads: Threads inside one operator; 0 takes every processor.

    Raises:
        ModelFileError: If the file cannot be loaded.
        DataError: If there are no samples, or inputs or labels do not fit the model.
    """
    ranks: list[NDArray[np.int64]] = []
    waiting: deque[Array] = deque()
    classes = 0
    for outputs in bench.run(path, _feeds(batches, waiting), threads):
        logits, labels = outputs[output], waiting.popleft()
        _check(logits, labels)
        classes = logits.shape[1]
        ranks.append(_ranks(logits, labels))
    if not ranks:
        msg = "there are no samples to compute the accuracy on"
        raise DataError(msg)
    return _accuracy(np.concatenate(ranks), classes)


def _feeds(batches: Iterable[Batch], labels: deque[Array]) -> Iterator[Feed]:
    """Yields the inputs; puts the labels of what was yielded into `labels`."""
    for inputs, own in batches:
        labels.append(own)
        yield inputs


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


def _accuracy(ranks: NDArray[np.int64], classes: int) -> Accuracy:
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
