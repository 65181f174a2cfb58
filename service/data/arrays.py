"""NumPy archives: `images` (or `x`) and, if labelled, `labels` (or `y`).

Each array is unpacked to a file once and memory-mapped, so that memory does not grow with the data. Nothing is
unpickled.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from typing_extensions import override

from service.data.errors import BrokenImageError, DataError
from service.data.images import Images, Labelling
from service.data.pixels import from_array

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.data.preprocessing import ResolvedPreprocessing

IMAGE_ARRAYS: Final = ("images", "x", "X")
LABEL_ARRAYS: Final = ("labels", "y", "Y")
MAX_ARRAY_BYTES: Final = 256 * 2**30


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
    def load(self, indices: Sequence[int]) -> list[npt.NDArray[np.uint8] | BrokenImageError]:
        return [from_array(np.asarray(self._array[index]), self._recipe) for index in indices]

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
    try:
        with zipfile.ZipFile(file) as archive:
            names = {Path(name).stem: name for name in archive.namelist() if name.endswith(".npy")}
            image, label = (next((n for n in wanted if n in names), None) for wanted in (IMAGE_ARRAYS, LABEL_ARRAYS))
            if image is None:
                found = ", ".join(names) or "no arrays"
                raise DataError(field, f"no array 'images' or 'x' in {file.name}: found {found}; save one")
            values = _mapped(archive, names[image], work, field)
            labels = _mapped(archive, names[label], work, field) if label else None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as exc:
        raise DataError(field, f"cannot read {file.name} as .npz: {exc}; save it again with np.savez") from exc
    if len(values) == 0:
        raise DataError(field, f"{file.name} holds no samples; give at least a few hundred")
    samples = _samples(values, recipe, field)
    return samples, _labelling(labels, len(values), field)


def _mapped(archive: zipfile.ZipFile, name: str, work: Path, field: str) -> npt.NDArray[Any]:
    """Unpacks one array and maps it into memory."""
    size = archive.getinfo(name).file_size
    if size > MAX_ARRAY_BYTES:
        raise DataError(field, f"array {name} unpacks to {size} bytes, at most {MAX_ARRAY_BYTES} are taken; split it")
    target = work / Path(name).name
    with archive.open(name) as packed, target.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 1 << 20)
    if _holds_objects(target):
        raise DataError(field, f"array {name} holds Python objects, which would be unpickled; save numbers only")
    return np.load(target, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def _holds_objects(file: Path) -> bool:
    with file.open("rb") as opened:
        version = np.lib.format.read_magic(opened)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return bool(read(opened)[2].hasobject)


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
        return Labelling(np.full(count, -1, dtype=np.int64))
    if labels.shape not in ((count,), (count, 1)) or labels.dtype.kind not in "iub":
        raise DataError(
            field,
            f"labels have shape {list(labels.shape)} and type {labels.dtype}; wanted {count} integers, one per sample",
        )
    return Labelling(np.array(labels, dtype=np.int64).reshape(count))
