"""Opens a split, whatever it is stored as."""

from __future__ import annotations

import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from service.data.archives import unpack_tar
from service.data.arrays import open_npz
from service.data.checks import check_labels
from service.data.errors import DataError, machine_is_to_blame
from service.data.images import Images, Labelling, open_folder
from service.data.parquet import open_parquet
from service.data.split import Split
from service.data.store import ArrayStore, ImageStore, Store

if TYPE_CHECKING:
    from service.data.preprocessing import ResolvedPreprocessing

Format = Literal["FORMAT_UNSPECIFIED", "FORMAT_CLASS_FOLDERS", "FORMAT_PARQUET", "FORMAT_NPZ"]

_PARQUET_MAGIC: Final = b"PAR1"
_SPLIT_WORDS: Final = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_STORED_AS: Final = {
    "FORMAT_CLASS_FOLDERS": "a folder (or tar) of class folders",
    "FORMAT_PARQUET": "Parquet",
    "FORMAT_NPZ": "a NumPy archive (.npz)",
}


def open_split(
    path: Path,
    format: Format,  # noqa: A002  # the name of the field in the API
    preprocessing: ResolvedPreprocessing,
    work: Path,
    field: str = "data",
) -> Split:
    """Opens the samples of one split.

    Args:
        path: A folder, or a file. What a file is, its content tells; its name does not matter.
        format: What the caller says it is; `FORMAT_UNSPECIFIED` to be told by the content.
        preprocessing: How samples become model inputs.
        work: An existing folder for what must be unpacked; it must live as long as the split.
        field: The job spec's field to blame, `data.train` or `data.validation`.

    Raises:
        DataError: The samples cannot be used; the message says why.
        OSError: The machine is to blame: the disk is full, say.
    """
    own = Path(tempfile.mkdtemp(dir=work, prefix="split-"))
    try:
        return _open(path, format, preprocessing, own, field)
    except OSError as exc:
        if machine_is_to_blame(exc):
            raise
        why = exc.strerror or str(exc)
        raise DataError(field, f"cannot read {path.name}: {why}; check that it exists and is readable") from exc


def _open(path: Path, asked: Format, recipe: ResolvedPreprocessing, work: Path, field: str) -> Split:
    if path.is_file() and _is_tar(path):
        unpack_tar(path, work / "unpacked", field)
        path = _only_file(work / "unpacked")
    found, files = _told(path, field)
    if asked not in ("FORMAT_UNSPECIFIED", found):
        raise DataError(
            field, f"{path.name} was said to be {_STORED_AS[asked]} and is {_STORED_AS[found]}; correct one of them"
        )
    _require_fit(found, recipe, field)
    samples, labelling = _samples(found, files or [path], recipe, work, field)
    store: Store = (
        ImageStore(samples, labelling.labels, recipe, field) if isinstance(samples, Images) else ArrayStore(samples)
    )
    split = Split(store, labelling, recipe, field)
    check_labels(split)
    return split


def _samples(
    found: str, files: Sequence[Path], recipe: ResolvedPreprocessing, work: Path, field: str
) -> tuple[Images | np.ndarray[tuple[int, ...], np.dtype[np.generic]], Labelling]:
    if found == "FORMAT_PARQUET":
        return open_parquet(files, work, recipe, field)
    if found == "FORMAT_NPZ":
        return open_npz(files[0], work, recipe, field)
    return open_folder(files[0], recipe, field)


def _require_fit(found: str, recipe: ResolvedPreprocessing, field: str) -> None:
    if found != "FORMAT_NPZ" and (recipe.raw or recipe.channels not in (1, 3)):
        raise DataError(
            field,
            f"{_STORED_AS[found]} holds images, and the model takes samples of shape {list(recipe.sample_shape)}"
            f"{' as they are (preprocessing.raw)' if recipe.raw else ''}; give a .npz with ready model inputs",
        )


def _told(path: Path, field: str) -> tuple[Literal["FORMAT_CLASS_FOLDERS", "FORMAT_PARQUET", "FORMAT_NPZ"], list[Path]]:
    """Returns what the content is, and the files it is in (empty: the folder itself)."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        shards = [file for file in files if _is_parquet(file)]
        if shards:
            _refuse_mixed_splits(shards, field)
            return "FORMAT_PARQUET", shards
        archives = [file for file in files if zipfile.is_zipfile(file)]
        if len(archives) == 1:
            return "FORMAT_NPZ", archives
        return "FORMAT_CLASS_FOLDERS", []
    if _is_parquet(path):
        return "FORMAT_PARQUET", [path]
    if zipfile.is_zipfile(path):
        return "FORMAT_NPZ", [path]
    raise DataError(
        field,
        f"{path.name} is none of the known formats; give a folder or tar of class folders, Parquet with image and "
        "label columns, or .npz with images and labels",
    )


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == _PARQUET_MAGIC


def _is_tar(file: Path) -> bool:
    # is_tarfile takes an empty file for an empty archive.
    return file.stat().st_size > 0 and tarfile.is_tarfile(file)


def _only_file(folder: Path) -> Path:
    """Returns the file, where the archive holds just one (a packed .npz, say), else the folder."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_file() else folder


def _refuse_mixed_splits(shards: Sequence[Path], field: str) -> None:
    """Training on what is to be validated on would make every accuracy worthless."""
    words = (file.name.lower().replace(".", "-").split("-")[0] for file in shards)
    splits = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    if len(splits) > 1:
        raise DataError(field, f"the folder holds several splits ({', '.join(sorted(splits))}); give the files of one")
