"""The samples of one split, as the engine and the measuring read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch.utils.data import Dataset

from compressors.problem import Sample
from service.data.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.data.labels import Labelling
    from service.data.preprocessing import ResolvedPreprocessing
    from service.data.store import Store
    from service.data.tokens import TokenRecipe


@final
class Split(Dataset[Sample]):
    """A map-style dataset of preprocessed samples: `len()`, `[i]`, and whole batches at once.

    Subsets are views: they share decoded images. Not for use from several threads at a time.
    """

    def __init__(
        self,
        store: Store,
        labelling: Labelling,
        recipe: ResolvedPreprocessing | TokenRecipe,
        field: str,
        indices: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._store = store
        self._labelling = labelling
        self._recipe = recipe
        self._field = field
        self._indices = _usable(store, len(labelling.labels)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        inputs, targets = self.batch([index])
        target = int(targets[0]) if targets.dim() == 1 else targets[0]
        return tuple(values[0] for values in inputs), target

    def batch(self, indices: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Returns samples stacked.

        A sample that turns out to be broken only now is replaced by the next one of this split, with its own label.

        Args:
            indices: Which ones, each in [-len, len), in any order, repeats allowed.

        Returns:
            The model's inputs, each (len(indices), ...), and the targets: class indices, int64, -1 where there is none;
            or float32 (len(indices), classes) where samples may have several classes.

        Raises:
            DataError: Too many samples are broken.
        """
        places = np.asarray(indices, dtype=np.int64) % max(1, len(self))
        inputs = self._store.inputs(self._indices[places])
        while len(self._store.broken) and (bad := np.flatnonzero(~_sound(self._store, self._indices[places]))).size:
            places[bad] = [self._next(int(place)) for place in places[bad]]
            for values, found in zip(inputs, self._store.inputs(self._indices[places[bad]]), strict=True):
                values[torch.from_numpy(bad)] = found
        return inputs, torch.from_numpy(self._labelling.targets(self._indices[places]))

    def _next(self, place: int) -> int:
        """Returns the place of the next sample that is not known to be broken."""
        for step in range(1, len(self)):
            following = (place + step) % len(self)
            if int(self._indices[following]) not in self._store.broken:
                return following
        raise DataError(
            self._field,
            f"none of {len(self)} samples can be used; for example {'; '.join(self.broken_names)}; replace them",
        )

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Split:
        """Returns a view of some samples, in the order given."""
        rows = self._indices[np.asarray(indices, dtype=np.int64)]
        return Split(self._store, self._labelling, self._recipe, self._field, rows)

    def widened(self, classes: int) -> Split:
        """Returns the same samples with targets over `classes` classes, where lists of classes left open how many."""
        return Split(self._store, self._labelling.widened(classes), self._recipe, self._field, self._indices)

    def labels(self) -> npt.NDArray[np.int64]:
        """Returns the class index of every sample, -1 where there is none; the first one where there may be several."""
        return self._labelling.labels[self._indices]

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label."""
        return self.several or bool((self.labels() >= 0).all())

    @property
    def several(self) -> bool:
        """Whether a sample may have several classes, so that targets are vectors."""
        return self._labelling.sets is not None

    @property
    def width(self) -> int | None:
        """Length of the target vectors where there are any; None too where lists of classes leave it open."""
        sets = self._labelling.sets
        return sets.width if sets is not None and sets.fixed else None

    @property
    def highest(self) -> int:
        """The highest class index of any sample, -1 where there is none."""
        sets = self._labelling.sets
        return int((self.labels() if sets is None else sets.members).max(initial=-1))

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes by index; None where the source has only numbers, or none."""
        return self._labelling.classes

    @property
    def classes_by_position(self) -> bool:
        """Whether a class index is only the position in the sorted list of names, as for folders."""
        return self._labelling.by_position

    @property
    def broken(self) -> int:
        """How many samples of the whole source could not be read so far; none of them is a sample of this split."""
        return len(self._store.broken)

    @property
    def broken_names(self) -> tuple[str, ...]:
        """A few of the broken samples, each with its reason."""
        return self._store.broken.describe()

    @property
    def preprocessing(self) -> ResolvedPreprocessing | TokenRecipe:
        """How samples become inputs."""
        return self._recipe

    @property
    def field(self) -> str:
        """The job spec's field that these samples come from, for error messages."""
        return self._field

    def numpy_batches(self, batch_size: int) -> Iterator[tuple[tuple[npt.NDArray[Any], ...], npt.NDArray[Any]]]:
        """Yields all samples in order, for measuring a file: inputs, each (batch, ...), and targets as of `batch`.

        A sample that turns out to be broken only now is left out, so that nothing is counted twice.
        """
        for start in range(0, len(self), batch_size):
            rows = self._indices[start : start + batch_size]
            inputs = self._store.inputs(rows)
            good = _sound(self._store, rows)
            yield tuple(values.numpy()[good] for values in inputs), self._labelling.targets(rows[good])


def _usable(store: Store, count: int) -> npt.NDArray[np.int64]:
    """Returns the indices below `count` that are not known to be broken."""
    keep = np.ones(count, dtype=np.bool_)
    keep[sorted(store.broken.indices)] = False
    return np.flatnonzero(keep)


def _sound(store: Store, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tells for each row whether it is usable as far as is known."""
    return np.array([int(row) not in store.broken for row in rows], dtype=np.bool_)
