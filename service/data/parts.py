"""Which training samples do what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from service.data.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.data.split import Split

MAX_SELECTION: Final = 5000
SELECTION_FRACTION: Final = 0.2
CALIBRATION: Final = 2048
MIN_SAMPLES: Final = 10


@dataclass(frozen=True)
class Parts:
    """Training samples by use.

    Attributes:
        fit: For fine-tuning.
        selection: Held back: choices are made on it. Disjoint from `fit`.
        calibration: For closed-form fits; a part of `fit`, no more than `calibration_size`.
    """

    fit: Split
    selection: Split
    calibration: Split


def parts(train: Split, seed: int, selection_size: int | None = None, calibration_size: int = CALIBRATION) -> Parts:
    """Divides the training samples; the same arguments give the same parts.

    Each part holds every class in proportion, give or take a sample or two, where there are labels.

    Args:
        train: All training samples.
        seed: Which ones go where.
        selection_size: How many are held back, in [1, len(train) - 1]. Default: a fifth, at most 5000.
        calibration_size: At most this many are for closed-form fits, at least 1.

    Raises:
        DataError: There are too few samples to hold any back.
    """
    total = len(train)
    if total < MIN_SAMPLES:
        raise DataError(train.field, f"{total} usable samples; give at least {MIN_SAMPLES}, better a few thousand")
    held_back = min(MAX_SELECTION, int(SELECTION_FRACTION * total)) if selection_size is None else selection_size
    if not 1 <= held_back < total:
        raise ValueError(f"selection_size must be in [1, {total - 1}], not {held_back}")
    order = _stratified_order(train.labels(), np.random.default_rng(seed))
    fit = order[held_back:]
    # Taken in stratified order, so that the first ones are a fair sample; and apart from the selection.
    calibration = _stratified_order(train.labels()[fit], np.random.default_rng((seed, 1)))[:calibration_size]
    return Parts(train.subset(np.sort(fit)), train.subset(np.sort(order[:held_back])), train.subset(fit[calibration]))


def _stratified_order(labels: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Returns a random order in which every prefix holds each label in proportion, give or take a sample or two.

    The k-th of the n samples of a class is put at (k + u) / n of the way, with one random u per class.
    """
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members] = (rng.permutation(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable")
