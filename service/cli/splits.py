"""Finds the splits in a data folder by their names, and packs class folders for the upload."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from service.cli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SUFFIXES: Final = (".parquet", ".npz", ".tar")
_EXAMPLES: Final = "train.parquet, validation.npz or a folder test/ with one folder per class"


@dataclass(frozen=True)
class Splits:
    """Where the samples are.

    Attributes:
        train: File or class folder, if there is one.
        validation: File or class folder; the test split where there is no validation split.
        unused: A test split that is left alone because there is a validation split.
    """

    train: Path | None
    validation: Path | None
    unused: Path | None = None


def find(folder: Path) -> Splits:
    """Tells the splits of a data folder by name: train*, validation* or val*, test*.

    Raises:
        InputError: Not a folder, no split in it, or two candidates for one split.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"--data {folder} {found}; give a folder that holds {_EXAMPLES}")
    candidates = sorted(path for path in folder.iterdir() if _may_be_split(path))
    train, validation, test = (_only(folder, candidates, prefix) for prefix in ("train", "val", "test"))
    if train is None and validation is None and test is None:
        names = ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"
        raise InputError(f"--data {folder} holds no split; wanted {_EXAMPLES}, found {names}")
    return Splits(train, validation or test, test if validation else None)


def _may_be_split(path: Path) -> bool:
    return not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in _SUFFIXES)


def _only(folder: Path, candidates: list[Path], prefix: str) -> Path | None:
    found = [path for path in candidates if path.name.lower().startswith(prefix)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"--data {folder} holds {len(found)} candidates for the split {prefix}*: {names}; keep one")
    return found[0] if found else None


def pack(folder: Path, archive: Path) -> int:
    """Writes a folder of class folders to a tar archive whose bytes depend on names and contents alone.

    Symbolic links to files are followed; hidden files are left out.

    Args:
        folder: Holds one folder per class.
        archive: Where to write.

    Returns:
        How many files were packed.

    Raises:
        InputError: There are no class folders, or no files in them.
        OSError: Something cannot be read or written.
    """
    count = 0
    # PAX keeps names of any length and alphabet; the name of a member is all that may differ between machines.
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in _samples(folder):
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)
            count += 1
    if count == 0:
        raise InputError(f"{folder} holds no class folders with files; wanted one folder per class, images inside")
    return count


def _samples(folder: Path) -> Iterator[Path]:
    for class_folder in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for path in sorted(class_folder.rglob("*")):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path
