"""The samples of one split, as the engine and the measuring read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch.utils.data import Dataset

from compressors.problem import Sample
from service.data.store import not_broken, usable

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.data.images import Labelling
    from service.data.preprocessing import ResolvedPreprocessing
    from service.data.store import Store


@final
class Split(Dataset[Sample]):
    """A map-style dataset of preprocessed samples: `len()`, `[i]`, and whole batches at once.

    Subsets are views: they share decoded images. Not for use from several threads at a time.
    """

    def __init__(
        self,
        store: Store,
        labelling: Labelling,
        recipe: ResolvedPreprocessing,
        field: str,
        indices: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self._store = store
        self._labelling = labelling
        self._recipe = recipe
        self._field = field
        self._indices = usable(store, len(labelling.labels)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        inputs, labels = self.batch([index])
        return tuple(values[0] for values in inputs), int(labels[0])

    def batch(self, indices: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Returns samples stacked.

        Args:
            indices: Which ones, each in [-len, len), in any order, repeats allowed.

        Returns:
            The model's inputs, float32 (len(indices), *sample_shape), and labels, int64, -1 where there is none.

        Raises:
            DataError: Too many images cannot be decoded.
        """
        rows = self._indices[np.asarray(indices, dtype=np.int64)]
        return (self._recipe.finish(self._store.gather(rows)),), torch.from_numpy(self._labelling.labels[rows])

    def subset(self, indices: Sequence[int] | npt.NDArray[np.int64]) -> Split:
        """Returns a view of some samples, in the order given."""
        rows = self._indices[np.asarray(indices, dtype=np.int64)]
        return Split(self._store, self._labelling, self._recipe, self._field, rows)

    def labels(self) -> npt.NDArray[np.int64]:
        """Returns the class index of every sample, -1 where there is none."""
        return self._labelling.labels[self._indices]

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label."""
        return bool((self.labels() >= 0).all())

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
        """How many images of the whole source could not be decoded so far; none of them is a sample."""
        return len(self._store.broken)

    @property
    def broken_names(self) -> tuple[str, ...]:
        """A few of the broken images, each with its reason."""
        return self._store.describe_broken()

    @property
    def preprocessing(self) -> ResolvedPreprocessing:
        """How images become inputs."""
        return self._recipe

    @property
    def field(self) -> str:
        """The job spec's field that these samples come from, for error messages."""
        return self._field

    def numpy_batches(
        self, batch_size: int
    ) -> Iterator[tuple[tuple[npt.NDArray[np.float32], ...], npt.NDArray[np.int64]]]:
        """Yields all samples in order, for measuring a file: inputs (batch, *sample_shape) and labels.

        An image that turns out to be broken only now is left out, so that nothing is counted twice.
        """
        for start in range(0, len(self), batch_size):
            rows = self._indices[start : start + batch_size]
            inputs: npt.NDArray[Any] = self._recipe.finish(self._store.gather(rows)).numpy()
            good = not_broken(self._store, rows)
            yield (inputs[good],), self._labelling.labels[rows[good]]
