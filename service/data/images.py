"""Where undecoded images come from: the contract, and folders of image files.

Folders are listed here and not with `datasets`: its image-folder reader also unpacks archives that it finds inside and
follows paths that a `metadata.jsonl` names, and all that is needed is a sorted list of files.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from typing_extensions import override

from service.data.errors import BrokenSampleError, DataError
from service.data.labels import Labelling
from service.data.pixels import decode

if TYPE_CHECKING:
    import numpy.typing as npt

    from service.data.preprocessing import ResolvedPreprocessing

# Below this, decoding holds Python's lock for longer than it releases it: two threads take twice as long as one.
_WORTH_A_THREAD_BYTES = 16 * 1024
_MAX_THREADS = 16


class Images(ABC):
    """Images of one split, decoded when they are asked for."""

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are, broken ones included."""

    @abstractmethod
    def load(self, indices: Sequence[int]) -> list[npt.NDArray[np.uint8] | BrokenSampleError]:
        """Returns each image as uint8 (channels, height, width), or why it cannot be decoded."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Says which image this is, for messages."""


def decode_all(
    encoded: Sequence[bytes | BrokenSampleError], recipe: ResolvedPreprocessing
) -> list[npt.NDArray[np.uint8] | BrokenSampleError]:
    """Returns each image decoded, or why it cannot be; in threads where the images are large."""

    def one(data: bytes | BrokenSampleError) -> npt.NDArray[np.uint8] | BrokenSampleError:
        if isinstance(data, BrokenSampleError):
            return data
        try:
            return decode(data, recipe)
        except BrokenSampleError as exc:
            return exc

    total = sum(len(data) for data in encoded if isinstance(data, bytes))
    if total < _WORTH_A_THREAD_BYTES * len(encoded):
        return [one(data) for data in encoded]
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(one, encoded))


@final
class FolderImages(Images):
    """Image files on disk."""

    def __init__(self, files: Sequence[Path], root: Path, recipe: ResolvedPreprocessing) -> None:
        self._files = files
        self._root = root
        self._recipe = recipe

    @override
    def __len__(self) -> int:
        return len(self._files)

    @override
    def load(self, indices: Sequence[int]) -> list[npt.NDArray[np.uint8] | BrokenSampleError]:
        return decode_all([_read(self._files[index]) for index in indices], self._recipe)

    @override
    def name(self, index: int) -> str:
        return str(self._files[index].relative_to(self._root))


def _read(file: Path) -> bytes | BrokenSampleError:
    try:
        return file.read_bytes()
    except OSError as exc:
        return BrokenSampleError(f"cannot be read: {exc.strerror}")


def open_folder(root: Path, recipe: ResolvedPreprocessing, field: str) -> tuple[FolderImages, Labelling]:
    """Opens a folder of class folders, or a flat folder of unlabelled images.

    Classes are numbered in the sorted order of their folders' names, as torchvision and `datasets` do. Links and hidden
    files are passed over.

    Raises:
        DataError: There are no files.
    """
    folders = children(root, folders=True)
    if not folders:
        files = children(root, folders=False)
        _require_files(files, root, field)
        return FolderImages(files, root, recipe), Labelling.none(len(files))
    by_class = [_files_under(folder) for folder in folders]
    files = [file for group in by_class for file in group]
    _require_files(files, root, field)
    labels = np.repeat(np.arange(len(folders), dtype=np.int64), [len(group) for group in by_class])
    return FolderImages(files, root, recipe), Labelling(labels, tuple(folder.name for folder in folders), True)


def children(root: Path, *, folders: bool) -> list[Path]:
    """Returns the folders in a folder, or the files, sorted; neither links nor hidden ones."""
    with os.scandir(root) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if not entry.name.startswith((".", "__MACOSX"))
            and (entry.is_dir(follow_symlinks=False) if folders else entry.is_file(follow_symlinks=False))
        )


def _files_under(folder: Path) -> list[Path]:
    files, pending = [], [folder]
    while pending:
        inside = pending.pop()
        files += children(inside, folders=False)
        pending += reversed(children(inside, folders=True))
    return files


def _require_files(files: Sequence[Path], root: Path, field: str) -> None:
    if not files:
        raise DataError(field, f"the folder {root.name!r} is empty; it must hold one folder of images per class")
