"""Model inputs by index, whatever they come from, within a fixed amount of memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from typing_extensions import override

from service.data.broken import Broken
from service.data.errors import BrokenSampleError

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    from service.data.images import Images
    from service.data.preprocessing import ResolvedPreprocessing

CACHE_BYTES: Final = 512 * 2**20

_CHUNK = 32
"""Images that are tried at once: undecoded, a thousand of them can be gigabytes."""
_PROBE = 512


class Store(ABC):
    """The samples of one source."""

    @abstractmethod
    def inputs(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
        """Returns the model's inputs, each (len(rows), ...); anything for those that are broken.

        Raises:
            DataError: Too many samples are broken.
        """

    @property
    @abstractmethod
    def broken(self) -> Broken:
        """Samples that are known to be unusable."""


@final
class ArrayStore(Store):
    """An array that has the sample's shape already; usually memory-mapped."""

    def __init__(self, array: npt.NDArray[Any], recipe: ResolvedPreprocessing) -> None:
        self._array = array
        self._recipe = recipe
        self._broken = Broken("")

    @override
    def inputs(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
        return (self._recipe.finish(np.asarray(self._array[rows])),)

    @property
    @override
    def broken(self) -> Broken:
        return self._broken


@final
class ImageStore(Store):
    """Images that are decoded when asked for; the first ones that fit stay decoded.

    What comes first stays: under the random order of training, that hits more often than keeping the latest. When all
    fit, all are decoded at once here, so that every broken image is known before anything is split. Otherwise some,
    evenly spread, are tried here, and others are found broken later.
    """

    def __init__(
        self, images: Images, recipe: ResolvedPreprocessing, field: str, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self._images = images
        self._recipe = recipe
        self._broken = Broken(field)
        capacity = min(len(images), cache_bytes // int(np.prod(recipe.sample_shape)))
        # The operating system commits a page only when it is written to.
        self._cache = np.empty((capacity, *recipe.sample_shape), dtype=np.uint8)
        self._slot = np.full(len(images), -1, dtype=np.int64)
        self._used = 0
        self._try_out()

    @override
    def inputs(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
        pixels = np.zeros((len(rows), *self._cache.shape[1:]), dtype=np.uint8)
        slots = self._slot[rows]
        hit = slots >= 0
        pixels[hit] = self._cache[slots[hit]]
        missing = np.flatnonzero(~hit)
        for position, image in zip(missing, self._images.load(rows[missing].tolist()), strict=True):
            self._note(int(rows[position]), image)
            if not isinstance(image, BrokenSampleError):
                pixels[position] = image
        self._broken.refuse_too_many(len(self._images))
        return (self._recipe.finish(pixels),)

    @property
    @override
    def broken(self) -> Broken:
        return self._broken

    def _try_out(self) -> None:
        total = len(self._images)
        whole = len(self._cache) >= total
        tried = np.arange(total) if whole else tried_first(total)
        for start in range(0, len(tried), _CHUNK):
            chunk = tried[start : start + _CHUNK]
            for index, image in zip(chunk, self._images.load(chunk.tolist()), strict=True):
                self._note(int(index), image, keep=whole)
        self._broken.refuse_too_many(len(tried))

    def _note(self, index: int, image: npt.NDArray[np.uint8] | BrokenSampleError, *, keep: bool = True) -> None:
        """Keeps a decoded image where there is room, and counts one that cannot be decoded."""
        if isinstance(image, BrokenSampleError):
            self._broken.note(index, self._images.name(index), str(image))
        elif keep and self._used < len(self._cache) and self._slot[index] < 0:
            self._cache[self._used] = image
            self._slot[index] = self._used
            self._used += 1


def tried_first(total: int) -> npt.NDArray[np.int64]:
    """Returns samples to try out before anything else, evenly spread over a source of `total`."""
    return np.unique(np.linspace(0, total - 1, min(_PROBE, total)).astype(np.int64))
