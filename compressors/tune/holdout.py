"""Samples held back from the training, to choose by."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, final

import torch
from torch.utils.data import Dataset

from compressors.batches import count, fetch
from compressors.errors import OptionError
from compressors.tasks import DrawnSamples
from compressors.tune.randomness import generator as seeded_generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressors.problem import Sample, Samples


@final
class Part(Dataset["Sample"]):
    """Some of the samples, in a given order.

    Args:
        samples: All of them.
        indices: Which.
    """

    def __init__(self, samples: Samples, indices: Sequence[int]) -> None:
        self._samples, self._indices = samples, list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[self._indices[index]]

    def batch(self, indices: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Returns several at once."""
        batch = fetch(self._samples, [self._indices[index] for index in indices])
        return batch.inputs, batch.labels


@final
class DrawnPart(Dataset["Sample"]):
    """Some of samples with a random part.

    Args:
        samples: All of them.
        indices: Which.
    """

    def __init__(self, samples: DrawnSamples, indices: Sequence[int]) -> None:
        self._samples, self._indices = samples, list(indices)
        self._part = Part(cast("Samples", samples), indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._part[index]

    def batch(self, indices: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Returns several at once, their random part as it always is."""
        return self._part.batch(indices)

    def drawn(
        self, indices: Sequence[int], generator: torch.Generator
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Returns several at once, their random part drawn anew."""
        return self._samples.drawn([self._indices[index] for index in indices], generator)


def split(samples: Samples, share: float, most: int, seed: int) -> tuple[Samples, Samples]:
    """Returns samples to train on and samples to choose by, disjoint, the same for the same seed.

    Args:
        samples: All that there are.
        share: Of them to hold back, in (0, 1).
        most: At most so many are held back.
        seed: For the choice.

    Raises:
        OptionError: There are fewer than two, or the share is 0 or 1.
    """
    total = count(samples)
    if total < 2 or not 0 < share < 1:
        raise OptionError(
            "data",
            f"Fine-tuning needs samples to train on and others to choose by; got {total}, of which a share of {share} "
            "is to be held back. Give at least two samples and a share between 0 and 1, or held-back samples.",
        )
    held = min(most, max(1, round(share * total)), total - 1)
    order = torch.randperm(total, generator=seeded_generator(seed, "holdout")).tolist()
    train, chosen = sorted(order[held:]), sorted(order[:held])
    if isinstance(samples, DrawnSamples):
        return DrawnPart(samples, train), Part(samples, chosen)
    return Part(samples, train), Part(samples, chosen)
