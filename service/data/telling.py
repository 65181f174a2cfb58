"""What a file or folder holds, told by its content, and which part of it a split is, told by names."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from service.data.archives import DAMAGE, decompressed, open_zip, opener, unpack_tar, unpack_zip
from service.data.delimited import is_delimited
from service.data.errors import TRAIN, VALIDATION, DataError
from service.data.images import children
from service.data.jsonl import is_jsonl
from service.data.saved import arrow_shards, kind_of
from service.data.webdataset import is_webdataset

Known = Literal[
    "FORMAT_CLASS_FOLDERS",
    "FORMAT_PARQUET",
    "FORMAT_NPZ",
    "FORMAT_ARROW",
    "FORMAT_WEBDATASET",
    "FORMAT_CSV",
    "FORMAT_JSONL",
]
Format = Literal["FORMAT_UNSPECIFIED"] | Known

STORED_AS: Final = {
    "FORMAT_CLASS_FOLDERS": "a folder (or tar or zip) of class folders",
    "FORMAT_PARQUET": "Parquet",
    "FORMAT_NPZ": "a NumPy archive (.npz)",
    "FORMAT_ARROW": "Arrow",
    "FORMAT_WEBDATASET": "WebDataset shards",
    "FORMAT_CSV": "CSV or TSV",
    "FORMAT_JSONL": "JSON lines",
}

_SPLIT_WORDS: Final = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "eval": "test",
}
_WANTED: Final = {TRAIN: ("train",), VALIDATION: ("validation", "test")}
_DEEPEST: Final = 16
"""Of folders and archives around the samples."""
_ARCHIVES: Final = 2
"""Of archives in one another; each may unpack to many times its size."""
_TEXTS: Final = (".csv", ".tsv", ".txt")
_FEW: Final = 1000
"""Files of a folder that are looked into for texts."""


@dataclass(frozen=True)
class Told:
    """What was found: the format, and the files that hold it (for class folders, the folder)."""

    format: Known
    files: tuple[Path, ...]


def tell(path: Path, asked: Format, work: Path, field: str) -> Told:
    """Tells what a path holds; archives are unpacked first, and of several splits the right one is taken.

    Args:
        path: A folder, or a file; a file's name does not matter.
        asked: What the caller says it is.
        work: An empty folder for what must be unpacked.
        field: Which split is wanted: `data.train` or `data.validation`; anything else for the only one.

    Raises:
        DataError: It is nothing that is known, or does not hold the split.
    """
    archives = 0
    for _ in range(_DEEPEST):
        if path.is_dir():
            inside = _inside(path, field)
        else:
            inside = path if archives == _ARCHIVES else _unpacked(path, asked, work / f"unpacked-{archives}", field)
            archives += 1
        if inside == path:
            break
        path = inside
    return _folder(path, field) if path.is_dir() else _file(path, field)


def _unpacked(path: Path, asked: Format, target: Path, field: str) -> Path:
    """Returns the folder that an archive is unpacked to, or the file itself where it need not be."""
    if _is_tar(path):
        plain = path if not _is_compressed(path) else decompressed(path, target.with_suffix(".tar"), field)
        if asked == "FORMAT_WEBDATASET" or (asked == "FORMAT_UNSPECIFIED" and is_webdataset(plain)):
            return plain
        unpack_tar(plain, target, field)
        if plain != path:
            plain.unlink()
    elif zipfile.is_zipfile(path) and not _is_npz(path, field):
        unpack_zip(path, target, field)
    else:
        return path
    return _only_file(target)


def _inside(folder: Path, field: str) -> Path:
    """Returns what to go on with: the wanted split, or the one folder that an archive wraps everything in."""
    folders, files = children(folder, folders=True), children(folder, folders=False)
    kinds = {kind for each in folders if (kind := _split_of(each))}
    if kinds and (len(kinds) > 1 or all(map(_split_of, folders))):
        return _picked(folders, folder, field)
    if len(folders) == 1 and not files:
        (only,) = folders
        wraps = children(only, folders=True) and not children(only, folders=False)
        return only if wraps or _folder(only, field).format != "FORMAT_CLASS_FOLDERS" else folder
    if not folders and len({kind for each in files if (kind := _split_of(each))}) > 1:
        chosen = _of_split(files, folder, field)
        return chosen[0] if len(chosen) == 1 else folder
    return folder


def _split_of(path: Path) -> str | None:
    """Returns which split a name speaks of, by its first word."""
    return _SPLIT_WORDS.get(re.split(r"[^a-z]", path.name.lower(), maxsplit=1)[0])


def _of_split(paths: Sequence[Path], folder: Path, field: str) -> list[Path]:
    """Returns what belongs to the wanted split; all where their names speak of one split at most.

    Training on what is to be validated on would make every accuracy worthless.
    """
    kinds = {kind for path in paths if (kind := _split_of(path))}
    if len(kinds) < 2 and not (kinds and field in _WANTED and not kinds & set(_WANTED[field])):
        return list(paths)
    for kind in _WANTED.get(field, ()):
        if chosen := [path for path in paths if _split_of(path) == kind]:
            return chosen
    wanted = f"wanted {' or '.join(_WANTED[field])}" if field in _WANTED else "give the files of one"
    raise DataError(field, f"the folder {folder.name!r} holds {_count(kinds)} ({', '.join(sorted(kinds))}); {wanted}")


def _count(kinds: set[str]) -> str:
    return "several splits" if len(kinds) > 1 else "another split"


def _picked(folders: Sequence[Path], folder: Path, field: str) -> Path:
    chosen = _of_split(folders, folder, field)
    if len(chosen) > 1:
        names = ", ".join(path.name for path in chosen)
        raise DataError(field, f"the folder {folder.name!r} holds {names}, which could all be the split; keep one")
    return chosen[0]


def _folder(folder: Path, field: str) -> Told:
    files = children(folder, folders=False)
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_signature(file), []).append(file)
    if "Parquet" in found:
        return Told("FORMAT_PARQUET", tuple(_of_split(found["Parquet"], folder, field)))
    if shards := arrow_shards(folder, field):
        return Told("FORMAT_ARROW", tuple(_of_split(shards, folder, field)))
    if "tar" in found:
        return Told("FORMAT_WEBDATASET", tuple(_of_split(found["tar"], folder, field)))
    if len(found.get("zip", ())) == 1:
        return Told("FORMAT_NPZ", tuple(found["zip"]))
    if not children(folder, folders=True) and (texts := _texts(found.get("", ())[:_FEW])):
        return Told(texts.format, tuple(_of_split(texts.files, folder, field)))
    return Told("FORMAT_CLASS_FOLDERS", (folder,))


def _signature(file: Path) -> str:
    """Returns what the first bytes of a file say that it is."""
    if kind := kind_of(file):
        return kind
    with file.open("rb") as opened:
        start = opened.read(512)
    if start[257:262] == b"ustar":
        return "tar"
    return "zip" if start.startswith(b"PK") and zipfile.is_zipfile(file) else ""


def _texts(files: Sequence[Path]) -> Told | None:
    """Returns the files of texts among some, of one format."""
    lines = tuple(file for file in files if file.suffix.lower() != ".json" and is_jsonl(file))
    if lines:
        return Told("FORMAT_JSONL", lines)
    tables = tuple(file for file in files if file.suffix.lower() in _TEXTS and is_delimited(file))
    return Told("FORMAT_CSV", tables) if tables else None


def _file(path: Path, field: str) -> Told:
    if kind := kind_of(path):
        return Told("FORMAT_PARQUET" if kind == "Parquet" else "FORMAT_ARROW", (path,))
    if _is_tar(path) and not _is_compressed(path):
        return Told("FORMAT_WEBDATASET", (path,))
    if zipfile.is_zipfile(path):
        return Told("FORMAT_NPZ", (path,))
    if is_jsonl(path):
        return Told("FORMAT_JSONL", (path,))
    if is_delimited(path):
        return Told("FORMAT_CSV", (path,))
    raise DataError(
        field,
        f"{path.name} is none of the known formats; give a folder, tar or zip of class folders, WebDataset "
        "shards, Parquet or Arrow with image or text columns, CSV, TSV or JSON lines of texts in UTF-8, or .npz "
        "with images and labels",
    )


def _is_tar(file: Path) -> bool:
    """Tells by its first header, and no more, whether a file is a tar archive, compressed or not."""
    try:
        with opener(file)(file, "rb") as opened:
            tarfile.TarInfo.frombuf(opened.read(tarfile.BLOCKSIZE), tarfile.ENCODING, "surrogateescape")
    except (tarfile.HeaderError, *DAMAGE):
        return False
    return True


def _is_compressed(file: Path) -> bool:
    return opener(file) is not open


def _is_npz(file: Path, field: str) -> bool:
    with open_zip(file, field) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") and "/" not in name for name in names)


def _only_file(folder: Path) -> Path:
    """Returns the file, where the archive holds just one (a packed .npz, say), else the folder."""
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_file() else folder
