"""Samples by the batch: the one place that reads a `Samples` dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from compressors.problem import BatchedSamples

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from compressors.problem import Samples


@dataclass(frozen=True)
class Batch:
    """Some samples, stacked.

    Attributes:
        inputs: The model's inputs, each (batch, ...).
        labels: Class indices, int64, shape (batch,), -1 where there is no label; or, where a sample may have several
            classes, float32, shape (batch, classes), zeros and ones.
    """

    inputs: tuple[torch.Tensor, ...]
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


def fetch(samples: Samples, indices: Sequence[int]) -> Batch:
    """Returns the samples at `indices`, in that order; in one call where the dataset can do that."""
    if isinstance(samples, BatchedSamples):
        return Batch(*samples.batch(indices))
    items = [samples[index] for index in indices]
    inputs = tuple(torch.stack(column) for column in zip(*(item[0] for item in items), strict=True))
    return Batch(inputs, _stacked([item[1] for item in items]))


def _stacked(targets: Sequence[int | torch.Tensor]) -> torch.Tensor:
    vectors = [target for target in targets if isinstance(target, torch.Tensor) and target.dim()]
    if vectors:
        return torch.stack(vectors).float()
    return torch.tensor([int(target) for target in targets], dtype=torch.int64)


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """Returns images with their channels side by side in memory; convolutions are faster on them, and so are norms."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def count(samples: Samples) -> int:
    """Returns how many samples there are."""
    return len(samples)  # type: ignore[arg-type]  # torch's Dataset promises no __len__, our Samples do


def in_order(samples: Samples, size: int, limit: int | None = None) -> Iterator[Batch]:
    """Yields the first `limit` samples (all by default) in batches of `size`; the last may be smaller."""
    total = count(samples) if limit is None else min(limit, count(samples))
    for start in range(0, total, size):
        yield fetch(samples, range(start, min(start + size, total)))
