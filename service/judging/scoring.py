"""How good shipped files are: figures of merit computed by running the very bytes on the validation samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

import torch

from compressors.batches import count, in_order
from compressors.score import Reference, joined, token_mask
from compressors.tasks import judged_output
from deploy.bench import Bench
from deploy.evaluate import Accuracy, Batch, evaluate
from deploy.predict import predict
from service.data import Split
from service.judging.quality import AGREEMENT, RELATIVE_ERROR, Goal, Quality

if TYPE_CHECKING:
    from compressors.graph import Edges
    from compressors.problem import Samples, Score

_BATCH: Final = 64
_KEPT_BYTES: Final = 2**30
"""Of the original's outputs; where they would be larger, fewer samples are scored and the count says so."""


@dataclass(frozen=True)
class FileScore:
    """What was found out about one file.

    Attributes:
        quality: The task's figure; without targets, how far the file does what the original's does. None without
            samples.
        accuracy: Top-1, where that is the figure and there are labels.
    """

    quality: Quality | None = None
    accuracy: Accuracy | None = None


@final
class Scorer:
    """Scores files of a job on its validation samples, beside the original's.

    Args:
        graph: The original, or its edges alone: says what inputs and outputs are.
        original: Its file.
        samples: What to score on; None for nothing.
        goal: What counts.
        bench: What runs the files.
    """

    def __init__(self, graph: Edges, original: Path, samples: Samples | None, goal: Goal, bench: Bench) -> None:
        self._graph, self._original, self._goal = graph, original, goal
        self._bench = bench
        self._samples = samples if samples is not None and count(samples) else None

    def compare(self, path: Path) -> Score:
        """Returns how a file compares with the original's file; there must be samples.

        Raises:
            DeployError: It cannot be run.
        """
        assert self._samples is not None
        reference = self._reference
        same = path == self._original
        return reference.compare(reference.outputs if same else self._outputs(path, self._samples))

    def score(self, path: Path) -> FileScore:
        """Returns how good a file is.

        Raises:
            DeployError: It cannot be run.
        """
        samples = self._samples
        if samples is None:
            return FileScore()
        if self._has_accuracy(samples):
            found = evaluate(path, _batches(samples), self._bench, output=judged_output(self._graph))
            figure = self._goal.figure
            return FileScore(Quality(figure, found.top1, found.n, found.ci_low, found.ci_high), found)
        return FileScore(self._quality(self.compare(path)))

    def _quality(self, score: Score) -> Quality:
        value, figure = self._goal.of(score), self._goal.figure
        if value is None and self._goal.task.name in ("classification", "multi_label"):
            value, figure = score.agreement, AGREEMENT
        elif value is None:
            value, figure = score.divergence, RELATIVE_ERROR
        return Quality(figure, value, score.samples)

    def _has_accuracy(self, samples: Samples) -> bool:
        labelled = isinstance(samples, Split) and samples.labelled and not samples.several
        vector = len(self._graph.outputs[judged_output(self._graph)].shape) == 1
        return labelled and vector and self._goal.task.name == "classification"

    @cached_property
    def _reference(self) -> Reference:
        """What the original's file gives on as many samples as can be kept."""
        samples = self._samples
        assert samples is not None
        place, masks, targets = token_mask(self._graph), [], []
        for part in in_order(samples, _BATCH, self._most):
            targets.append(part.labels)
            masks += [] if place is None else [part.inputs[place].bool()]
        return Reference(
            samples,
            self._outputs(self._original, samples),
            torch.cat(targets),
            _BATCH,
            self._goal.task,
            judged_output(self._graph),
            torch.cat(masks) if masks else None,
        )

    def _outputs(self, path: Path, samples: Samples) -> tuple[torch.Tensor, ...]:
        found = predict(path, _batches(samples, self._most), self._bench)
        return joined([tuple(torch.from_numpy(each).float() for each in outputs) for outputs in found])

    @property
    def _most(self) -> int:
        each = sum(4 * math.prod(output.shape) for output in self._graph.outputs)
        return max(_BATCH, _KEPT_BYTES // each)


def _batches(samples: Samples, most: int | None = None) -> Iterator[Batch]:
    """Yields inputs and targets as arrays; of a split, samples that turn out to be broken are left out."""
    if isinstance(samples, Split) and most is None:
        yield from samples.numpy_batches(_BATCH)
        return
    for part in in_order(samples, _BATCH, most):
        yield tuple(values.numpy() for values in part.inputs), part.labels.numpy()
