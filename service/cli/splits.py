"""Finds the splits in a data folder or archive by their names, and packs folders and shards for the upload."""

from __future__ import annotations

import re
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.cli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ARCHIVES: Final = (".tar", ".zip", ".tgz", ".gz", ".bz2", ".xz")
_TABLES: Final = (".parquet", ".arrow")
_TEXTS: Final = (".csv", ".tsv", ".jsonl")
_SUFFIXES: Final = (*_TABLES, ".npz", *_TEXTS, *_ARCHIVES)
_BESIDE: Final = ("state.json", "dataset_info.json")
_EXAMPLES: Final = "train.parquet, validation.npz, train.csv or a folder test/ with one folder per class"
_PREFIXES: Final = {"train": ("train",), "val": ("val", "dev"), "test": ("test", "eval")}


@dataclass(frozen=True)
class Shards:
    """Files that are one split together, in order."""

    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """What to call them."""
        return f"{self.files[0].name} to {self.files[-1].name}"


Split = Path | Shards


@dataclass(frozen=True)
class Splits:
    """Where the samples are.

    Attributes:
        train: File, folder or shards, if there is one.
        validation: The same; the test split where there is no validation split.
        unused: A test split that is left alone because there is a validation split.
    """

    train: Split | None
    validation: Split | None
    unused: Split | None = None


def find(folder: Path) -> Splits:
    """Tells the splits of a data folder by name: train*, validation* or val*, test*; or those inside of an archive.

    Raises:
        InputError: Neither folder nor archive, no split in it, or two candidates for one split.
    """
    if folder.is_file() and folder.suffix.lower() in _ARCHIVES:
        return _inside(folder)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"--data {folder} {found}; give a folder, zip or tar that holds {_EXAMPLES}")
    candidates = sorted(path for path in folder.iterdir() if _may_be_split(path))
    train, validation, test = (_only(folder, candidates, prefix) for prefix in _PREFIXES)
    if train is None and validation is None and test is None:
        raise InputError(f"--data {folder} holds no split; wanted {_EXAMPLES}, found {_listed(folder)}")
    return Splits(train, validation or test, test if validation else None)


def _listed(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())[:6]) or "nothing"


def _may_be_split(path: Path) -> bool:
    return not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in _SUFFIXES)


def _only(folder: Path, candidates: list[Path], prefix: str) -> Split | None:
    found = [path for path in candidates if path.name.lower().startswith(_PREFIXES[prefix])]
    if len(found) > 1 and not _are_shards(found):
        names = ", ".join(path.name for path in found)
        raise InputError(f"--data {folder} holds {len(found)} candidates for the split {prefix}*: {names}; keep one")
    return Shards(tuple(found)) if len(found) > 1 else found[0] if found else None


def _are_shards(paths: list[Path]) -> bool:
    """Tells whether files differ in numbers only, as train-00000-of-00002.parquet or train-000000.tar do."""
    return all(path.is_file() for path in paths) and len({re.sub(r"\d+", "0", path.name) for path in paths}) == 1


def _inside(archive: Path) -> Splits:
    """Returns the archive for each of the splits that are folders or files in it; the server takes out each."""
    try:
        words = {word for name in _names(archive) for word in _words(name)}
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as exc:
        raise InputError(f"--data {archive} cannot be read as an archive: {exc}") from exc
    train, validation, test = (any(word.startswith(start) for word in words) for start in _PREFIXES.values())
    if not (train or validation or test):
        raise InputError(f"--data {archive} holds no split; wanted {_EXAMPLES} in it")
    return Splits(archive if train else None, archive if validation or test else None)


def _names(archive: Path) -> Iterable[str]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield from opened.namelist()
        return
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            yield member.name
            tar.members = []  # type: ignore[attr-defined]  # not in typeshed; else every header is kept


def _words(name: str) -> Iterator[str]:
    """Yields what may name a split: the first two parts of a path, where archives wrap everything in one folder."""
    parts = [part for part in name.lower().split("/") if part not in ("", ".")]
    yield from (part for part in parts[:2] if not part.startswith("."))


def pack(split: Split, archive: Path) -> int:
    """Writes a folder or shards to a tar archive whose bytes depend on names and contents alone.

    Symbolic links to files are followed; hidden files are left out.

    Args:
        split: A folder with one folder per class, one with files of samples, or files.
        archive: Where to write.

    Returns:
        How many files were packed.

    Raises:
        InputError: There are no class folders, or no files in them.
        OSError: Something cannot be read or written.
    """
    count = 0
    top = split if isinstance(split, Path) else split.files[0].parent
    # PAX keeps names of any length and alphabet; the name of a member is all that may differ between machines.
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in _samples(split) if isinstance(split, Path) else split.files:
            member = tarfile.TarInfo(path.relative_to(top).as_posix())
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                tar.addfile(member, file)
            count += 1
    if count == 0:
        raise InputError(f"{split.name} holds no class folders with files; wanted one folder per class, images inside")
    return count


def _samples(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder that hold samples: tables and shards where there are any, else those of classes."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    wanted = (*_TABLES, *_ARCHIVES) if folders else _SUFFIXES
    if any(path.suffix.lower() in wanted for path in files):
        yield from (path for path in files if path.suffix.lower() in wanted or path.name in _BESIDE)
        return
    for class_folder in folders:
        for path in sorted(class_folder.rglob("*")):
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
                yield path
