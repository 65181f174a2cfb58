"""NumPy archives: `images` (or `x`) and, if labelled, `labels` (or `y`); or one array for each input of the model.

Each array is unpacked to a file once and memory-mapped, so that memory does not grow with the data. Nothing is
unpickled.
"""

from __future__ import annotations

import math
import shutil
import tokenize
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import torch
from typing_extensions import override

from service.data.archives import allowance, open_zip
from service.data.broken import Broken
from service.data.errors import BrokenSampleError, DataError
from service.data.images import Images
from service.data.labels import ClassSets, Labelling
from service.data.pixels import from_array
from service.data.store import Store
from service.wording import reason

if TYPE_CHECKING:
    import numpy.typing as npt

    from compressors.graph import TensorSpec
    from service.data.preprocessing import ResolvedPreprocessing
    from service.data.tokens import TokenRecipe

IMAGE_ARRAYS: Final = ("images", "x", "X")
LABEL_ARRAYS: Final = ("labels", "y", "Y")
MAX_ARRAY_BYTES: Final = 256 * 2**30

_HEADER_ERRORS: Final = (
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
    OverflowError,
)
"""Of numpy and of Python's parser, which reads headers; the parser says MemoryError where its own stack ends."""


@final
class ArrayImages(Images):
    """uint8 arrays of another size than the model's input: each is resized and cropped like an image."""

    def __init__(self, array: npt.NDArray[np.uint8], recipe: ResolvedPreprocessing) -> None:
        self._array = array
        self._recipe = recipe

    @override
    def __len__(self) -> int:
        return len(self._array)

    @override
    def load(self, indices: Sequence[int]) -> list[npt.NDArray[np.uint8] | BrokenSampleError]:
        return [self._image(index) for index in indices]

    def _image(self, index: int) -> npt.NDArray[np.uint8] | BrokenSampleError:
        try:
            return from_array(np.asarray(self._array[index]), self._recipe)
        except BrokenSampleError as exc:
            return exc

    @override
    def name(self, index: int) -> str:
        return f"image {index}"


def open_npz(
    file: Path, work: Path, recipe: ResolvedPreprocessing, field: str
) -> tuple[npt.NDArray[Any] | ArrayImages, Labelling]:
    """Opens a NumPy archive.

    Returns:
        The samples, and their labels. Samples that have the model's input shape come as an array (batch, *sample_shape)
        of uint8 or of floating point; others as images to resize.

    Raises:
        DataError: It is damaged, holds Python objects, misses the images, or shapes and types do not fit.
    """
    with _opened(file, field) as (archive, names):
        image = next((name for name in IMAGE_ARRAYS if name in names), None)
        if image is None:
            found = ", ".join(names) or "no arrays"
            raise DataError(field, f"no array 'images' or 'x' in {file.name}: found {found}; save one")
        values = _mapped(archive, names[image], work, field)
        labels = _labels(archive, names, work, field)
    _require_samples(values, file, field)
    samples = _samples(values, recipe, field)
    return samples, _labelling(labels, len(values), field)


@final
class FeedStore(Store):
    """One array for each input of the model, memory-mapped, taken as they are."""

    def __init__(self, arrays: Sequence[npt.NDArray[Any]], inputs: Sequence[TensorSpec]) -> None:
        self._arrays = arrays
        self._inputs = inputs
        self._broken = Broken("")

    @override
    def inputs(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
        return tuple(
            torch.from_numpy(np.ascontiguousarray(array[rows])).to(spec.dtype, copy=True)
            for array, spec in zip(self._arrays, self._inputs, strict=True)
        )

    @property
    @override
    def broken(self) -> Broken:
        return self._broken


def open_feeds(file: Path, work: Path, recipe: TokenRecipe, field: str) -> tuple[FeedStore, Labelling]:
    """Opens a NumPy archive with ready inputs: one array for each input of the model, by its name.

    Raises:
        DataError: One is missing, has another shape or type than the input, or values that the model does not know.
    """
    arrays = []
    with _opened(file, field) as (archive, names):
        for spec in recipe.inputs:
            name = (
                spec.name
                if spec.name in names or len(recipe.inputs) > 1
                else next((name for name in IMAGE_ARRAYS if name in names), spec.name)
            )
            if name not in names:
                raise DataError(
                    field,
                    f"no array {spec.name!r} in {file.name}: found {', '.join(names) or 'no arrays'}; save one "
                    f"for each input of the model ({', '.join(each.name for each in recipe.inputs)})",
                )
            array = _mapped(archive, names[name], work, field)
            _require_feed(array, spec, name, field)
            arrays.append(array)
        labels = _labels(archive, names, work, field)
    _require_samples(arrays[0], file, field)
    if len({len(array) for array in arrays}) > 1:
        counts = ", ".join(f"{spec.name} {len(array)}" for spec, array in zip(recipe.inputs, arrays, strict=True))
        raise DataError(
            field, f"the arrays in {file.name} have different numbers of samples: {counts}; save as many of each"
        )
    return FeedStore(arrays, recipe.inputs), _labelling(labels, len(arrays[0]), field)


def holds_array(path: Path, name: str) -> bool:
    """Returns whether a file is a NumPy archive with an array of this name."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return f"{name}.npy" in archive.namelist()


def _require_feed(array: npt.NDArray[Any], spec: TensorSpec, name: str, field: str) -> None:
    kinds = "fiub" if spec.dtype.is_floating_point else "iub"
    if array.shape[1:] != spec.shape or array.dtype.kind not in kinds or array.ndim == 0:
        raise DataError(
            field,
            f"array {name!r} has samples of shape {list(array.shape[1:])} ({array.dtype}) and the model's input takes "
            f"{list(spec.shape)} ({str(spec.dtype).removeprefix('torch.')}); save it as the model takes it",
        )
    if not array.size:
        return
    if spec.dtype.is_floating_point:
        _require_finite(array, field)
        return
    low, high = (int(pick([pick(block) for block in _blocks(array)])) for pick in (np.min, np.max))
    # Two is what a table has of which nothing is known.
    if low < 0 or (spec.high > 2 and high >= spec.high):
        raise DataError(
            field, f"array {name!r} goes from {low} to {high}, and the model knows 0 to {spec.high - 1}; correct it"
        )


@contextmanager
def _opened(file: Path, field: str) -> Iterator[tuple[zipfile.ZipFile, dict[str, str]]]:
    try:
        with open_zip(file, field) as archive:
            yield archive, {Path(name).stem: name for name in archive.namelist() if name.endswith(".npy")}
    except DataError as exc:
        if exc.__cause__ is None:
            raise
        raise DataError(
            field, f"cannot read {file.name} as .npz: {reason(exc.__cause__)}; save it again with np.savez"
        ) from exc.__cause__


def _labels(archive: zipfile.ZipFile, names: dict[str, str], work: Path, field: str) -> npt.NDArray[Any] | None:
    label = next((name for name in LABEL_ARRAYS if name in names), None)
    return _mapped(archive, names[label], work, field) if label else None


def _require_samples(values: npt.NDArray[Any], file: Path, field: str) -> None:
    if values.ndim == 0 or len(values) == 0:
        raise DataError(field, f"{file.name} holds no samples; give at least a few hundred")
    if values.size == 0:
        raise DataError(field, f"the samples in {file.name} have shape {list(values.shape[1:])}, which holds nothing")


def _mapped(archive: zipfile.ZipFile, name: str, work: Path, field: str) -> npt.NDArray[Any]:
    """Unpacks one array and maps it into memory."""
    size, most = archive.getinfo(name).file_size, min(MAX_ARRAY_BYTES, allowance([Path(str(archive.filename))]))
    if size > most:
        raise DataError(
            field, f"array {name} unpacks to {size} bytes, at most {most} are taken; split it, or save it uncompressed"
        )
    target = work / Path(name).name
    with archive.open(name) as packed, target.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 1 << 20)
    try:
        _require_plain(target, name, field)
        return np.load(target, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except _HEADER_ERRORS:  # what they say is of Python's syntax, and no help
        raise DataError(
            field, f"array {name[:200]} has a header that cannot be read; save it again with np.savez"
        ) from None


def _require_plain(file: Path, name: str, field: str) -> None:
    """Makes sure that an array holds values, as many as its header says, and no objects."""
    with file.open("rb") as opened:
        version = np.lib.format.read_magic(opened)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(opened)
        start = opened.tell()
    if dtype.hasobject:
        raise DataError(field, f"array {name} holds Python objects, which would be unpickled; save numbers only")
    stated, found = math.prod(shape) * dtype.itemsize, file.stat().st_size - start
    if min(shape, default=0) < 0 or stated > found:
        raise DataError(
            field,
            f"array {name} is said to have shape {list(shape)} ({dtype}) and holds {found} bytes; save it again",
        )


def _samples(values: npt.NDArray[Any], recipe: ResolvedPreprocessing, field: str) -> npt.NDArray[Any] | ArrayImages:
    if values.dtype.kind not in "fiub":
        raise DataError(field, f"the images are of type {values.dtype}; wanted uint8 or floating point")
    if recipe.raw:
        return _raw(values, recipe, field)
    if values.dtype.kind == "f":
        _require_unit_range(values, field)
        exact = _channels_first(values, recipe)
        if exact is None:
            raise _misshapen(values, recipe, field, "floating point is not resized")
        return exact
    if values.dtype != np.uint8:
        raise DataError(
            field,
            f"the images are of type {values.dtype}; wanted uint8, floating point in [0, 1], or preprocessing.raw",
        )
    exact = _channels_first(values, recipe)
    if exact is not None:
        return exact
    if values.ndim == 3 or (values.ndim == 4 and values.shape[-1] in (1, 3)):
        return ArrayImages(values, recipe)
    if values.ndim == 4 and values.shape[1] in (1, 3):
        return ArrayImages(values.transpose(0, 2, 3, 1), recipe)
    raise _misshapen(values, recipe, field, "that is neither images (N, H, W, C) nor (N, C, H, W)")


def _raw(values: npt.NDArray[Any], recipe: ResolvedPreprocessing, field: str) -> npt.NDArray[Any]:
    if values.shape[1:] != recipe.sample_shape:
        raise _misshapen(values, recipe, field, "preprocessing.raw takes them as they are")
    _require_finite(values, field)
    return values


def _channels_first(values: npt.NDArray[Any], recipe: ResolvedPreprocessing) -> npt.NDArray[Any] | None:
    """Returns (N, C, H, W) as a view where the arrays already have the sample's size and channels, else None."""
    shape, (channels, height, width) = values.shape[1:], recipe.sample_shape
    if not recipe.keep_exact and values.dtype == np.uint8:
        return None
    if shape == recipe.sample_shape:
        return values
    if shape == (height, width, channels):
        return values.transpose(0, 3, 1, 2)
    return values[:, None] if shape == (height, width) and channels == 1 else None


def _misshapen(values: npt.NDArray[Any], recipe: ResolvedPreprocessing, field: str, why: str) -> DataError:
    return DataError(
        field,
        f"samples have shape {list(values.shape[1:])} ({values.dtype}) and the model takes "
        f"{list(recipe.sample_shape)}; {why}; save them in the model's shape, or as uint8 images",
    )


def _blocks(values: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    step = max(1, (1 << 22) // max(1, values[0].size))
    return [values[start : start + step] for start in range(0, len(values), step)]


def _require_finite(values: npt.NDArray[Any], field: str) -> None:
    if not all(np.isfinite(block).all() for block in _blocks(values)):
        raise DataError(field, "the samples hold values that are not finite (NaN or infinity); remove them")


def _require_unit_range(values: npt.NDArray[Any], field: str) -> None:
    _require_finite(values, field)
    low, high = (float(pick([pick(block) for block in _blocks(values)])) for pick in (np.min, np.max))
    if low < 0 or high > 1:
        raise DataError(
            field,
            f"floating-point images must lie in [0, 1] and these go from {low:g} to {high:g}; scale them, "
            "or set preprocessing.raw if they are ready model inputs",
        )


def _labelling(labels: npt.NDArray[Any] | None, count: int, field: str) -> Labelling:
    if labels is None:
        return Labelling.none(count)
    if labels.ndim == 2 and labels.shape[1] > 1 and len(labels) == count and labels.dtype.kind in "iubf":
        return Labelling.several(ClassSets.of_matrix(labels, field))
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iub":
        raise DataError(
            field,
            f"labels have shape {list(labels.shape)} and type {labels.dtype}; wanted {count} integers, one per "
            f"sample, or {count} rows of zeros and ones, one column per class",
        )
    return Labelling(np.array(labels, dtype=np.int64).reshape(count))
