"""How deploy describes a tensor at a model's edge, without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.errors import DataError

Array = NDArray[np.generic]
"""A numpy array of any element type."""


@dataclass(frozen=True)
class TensorInfo:
    """One named input or output of a model file.

    Attributes:
        name: Its name in the file.
        shape: Shape of one sample, without the batch dimension (always dimension 0). None marks a free dimension.
        dtype: Element type as numpy names it, e.g. `float32`.
        low: Smallest random value of an integer or boolean tensor; 1 for a mask, whose random values are ones.
        high: What random integers stay below: the size of the table that they look up, where that is known.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    low: int = 0
    high: int = 2

    def random(self, batch: int, seed: int) -> Array:
        """Returns reproducible values, shape (batch, *shape): standard-normal, or integers in [low, high).

        Raises:
            DataError: If a dimension other than the batch is free.
        """
        if None in self.shape:
            msg = f"input '{self.name}' has a free dimension besides the batch, {self.shape}: its size must be known"
            raise DataError(msg)
        size = (batch, *(size for size in self.shape if size is not None))
        generator = np.random.default_rng(seed)
        if np.issubdtype(np.dtype(self.dtype), np.floating):
            return generator.standard_normal(size, dtype=np.float32).astype(self.dtype)
        return generator.integers(self.low, self.high, size).astype(self.dtype)
