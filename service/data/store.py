"""Pixels by index, whatever they come from, within a fixed amount of memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from typing_extensions import override

from service.data.errors import BrokenImageError, DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.data.images import Images
    from service.data.preprocessing import ResolvedPreprocessing

CACHE_BYTES: Final = 512 * 2**20
MAX_BROKEN_FRACTION: Final = 0.05

_NAMED = 3
_CHUNK = 1024
_PROBE = 512


class Store(ABC):
    """Pixels of one split, before scaling."""

    @abstractmethod
    def gather(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Returns pixels (len(indices), *sample_shape), uint8 or floating point."""

    @property
    @abstractmethod
    def broken(self) -> frozenset[int]:
        """Indices that are known to be unusable."""

    @abstractmethod
    def describe_broken(self) -> tuple[str, ...]:
        """Names a few of the broken ones, each with its reason."""


@final
class ArrayStore(Store):
    """An array that has the sample's shape already; usually memory-mapped."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array

    @override
    def gather(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        return np.asarray(self._array[indices])

    @property
    @override
    def broken(self) -> frozenset[int]:
        return frozenset()

    @override
    def describe_broken(self) -> tuple[str, ...]:
        return ()


@final
class ImageStore(Store):
    """Images that are decoded when asked for; the first ones that fit stay decoded.

    What comes first stays: under the random order of training, that hits more often than keeping the latest. When all
    fit, all are decoded at once here, so that every broken image is known before anything is split. Otherwise some,
    evenly spread, are tried here, and one that turns out broken later is replaced by another of the same label.
    """

    def __init__(
        self,
        images: Images,
        labels: npt.NDArray[np.int64],
        recipe: ResolvedPreprocessing,
        field: str,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._images = images
        self._labels = labels
        self._field = field
        self._broken: dict[int, str] = {}
        capacity = min(len(images), cache_bytes // int(np.prod(recipe.sample_shape)))
        # The operating system commits a page only when it is written to.
        self._cache = np.empty((capacity, *recipe.sample_shape), dtype=np.uint8)
        self._slot = np.full(len(images), -1, dtype=np.int64)
        self._used = 0
        self._try_out()

    @override
    def gather(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        pixels = np.empty((len(indices), *self._cache.shape[1:]), dtype=np.uint8)
        slots = self._slot[indices]
        hit = slots >= 0
        pixels[hit] = self._cache[slots[hit]]
        missing = np.flatnonzero(~hit)
        for position, image in zip(missing, self._decoded(indices[missing]), strict=True):
            pixels[position] = image
        return pixels

    @property
    @override
    def broken(self) -> frozenset[int]:
        return frozenset(self._broken)

    @override
    def describe_broken(self) -> tuple[str, ...]:
        return tuple(f"{self._images.name(index)}: {why}" for index, why in sorted(self._broken.items())[:_NAMED])

    def _try_out(self) -> None:
        total = len(self._images)
        whole = len(self._cache) >= total
        tried = np.arange(total) if whole else np.unique(np.linspace(0, total - 1, min(_PROBE, total)).astype(np.int64))
        for start in range(0, len(tried), _CHUNK):
            chunk = tried[start : start + _CHUNK]
            for index, image in zip(chunk, self._images.load(chunk.tolist()), strict=True):
                if isinstance(image, BrokenImageError):
                    self._broken[int(index)] = str(image)
                elif whole:
                    self._keep(int(index), image)
        self._refuse_too_many(len(tried))

    def _decoded(self, indices: npt.NDArray[np.int64]) -> list[npt.NDArray[np.uint8]]:
        loaded = self._images.load(indices.tolist())
        return [self._usable(int(index), image) for index, image in zip(indices, loaded, strict=True)]

    def _usable(self, index: int, image: npt.NDArray[np.uint8] | BrokenImageError) -> npt.NDArray[np.uint8]:
        if not isinstance(image, BrokenImageError):
            self._keep(index, image)
            return image
        self._broken.setdefault(index, str(image))
        self._refuse_too_many(len(self._images))
        alike = np.flatnonzero(self._labels == self._labels[index])
        for other in np.roll(alike, -int(np.searchsorted(alike, index)) - 1):
            replacement = self._load_one(int(other))
            if not isinstance(replacement, BrokenImageError):
                return replacement
        raise DataError(self._field, f"no image with label {self._labels[index]} can be decoded; {self._examples()}")

    def _load_one(self, index: int) -> npt.NDArray[np.uint8] | BrokenImageError:
        slot = self._slot[index]
        return self._cache[slot] if slot >= 0 else self._images.load([index])[0]

    def _keep(self, index: int, image: npt.NDArray[np.uint8]) -> None:
        if self._used < len(self._cache) and self._slot[index] < 0:
            self._cache[self._used] = image
            self._slot[index] = self._used
            self._used += 1

    def _refuse_too_many(self, tried: int) -> None:
        if len(self._broken) > MAX_BROKEN_FRACTION * tried:
            raise DataError(
                self._field,
                f"{len(self._broken)} of {tried} images cannot be decoded, at most {MAX_BROKEN_FRACTION:.0%} are "
                f"passed over; {self._examples()}; remove or replace them",
            )

    def _examples(self) -> str:
        return "for example " + "; ".join(self.describe_broken())


def usable(store: Store, count: int) -> npt.NDArray[np.int64]:
    """Returns the indices below `count` that are not known to be broken."""
    keep = np.ones(count, dtype=np.bool_)
    keep[sorted(store.broken)] = False
    return np.flatnonzero(keep)


def not_broken(store: Store, indices: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Tells for each index whether it is usable as far as is known."""
    return np.array([int(index) not in store.broken for index in indices], dtype=np.bool_)
