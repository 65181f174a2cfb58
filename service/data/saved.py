"""What Hugging Face `datasets` writes beside and into tables: which files, in which order, and class names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from service.data.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["Parquet", "Arrow"]

PARQUET_MAGIC: Final = b"PAR1"
ARROW_FILE_MAGIC: Final = b"ARROW1"
ARROW_STREAM_MAGIC: Final = b"\xff\xff\xff\xff"

_STATE_BYTES = 64 * 2**20


def kind_of(file: Path) -> Kind | None:
    """Tells by its content whether a file is Parquet or Arrow; None if it is neither."""
    with file.open("rb") as opened:
        start = opened.read(6)
    if start[:4] == PARQUET_MAGIC:
        return "Parquet"
    return "Arrow" if start == ARROW_FILE_MAGIC or start[:4] == ARROW_STREAM_MAGIC else None


def arrow_shards(folder: Path, field: str) -> list[Path]:
    """Returns the Arrow files of a folder, in order: those that `state.json` lists, as `datasets` saves them, else all.

    Raises:
        DataError: A file is missing, or lies elsewhere.
    """
    state = folder / "state.json"
    listed: list[Any] = []
    if state.is_file() and state.stat().st_size <= _STATE_BYTES:
        entries = _json(state.read_bytes(), lambda found: found).get("_data_files")
        entries = entries if isinstance(entries, list) else []
        listed = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    if not listed:
        # What `datasets` caches beside the data holds the same rows, transformed.
        files = [
            file
            for file in folder.iterdir()
            if file.is_file() and not file.is_symlink() and not file.name.startswith((".", "cache-", "tmp"))
        ]
        return sorted(file for file in files if kind_of(file) == "Arrow")
    for name in listed:
        inside = isinstance(name, str) and "/" not in name and "\\" not in name and name not in ("", ".", "..")
        if not inside or not (folder / name).is_file() or (folder / name).is_symlink():
            raise DataError(
                field, f"state.json lists the file {name!r}, which does not lie beside it; save the data set again"
            )
        if kind_of(folder / name) != "Arrow":
            raise DataError(field, f"{name}, which state.json lists, is no Arrow file; save the data set again")
    return [folder / name for name in listed]


def class_names(schema: pa.Schema, file: Path, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns the classes' names by column, from the schema's metadata, else from the file beside the table."""
    described = _json((schema.metadata or {}).get(b"huggingface", b""), lambda found: found["info"]["features"])
    info = file.parent / "dataset_info.json"
    if not described and info.is_file() and info.stat().st_size <= _STATE_BYTES:
        described = _json(info.read_bytes(), lambda found: found["features"])
    names = {column: _names(described.get(column)) for column in columns}
    return {column: found for column, found in names.items() if found}


def _names(feature: Any) -> tuple[str, ...]:
    """Returns the names of a ClassLabel, or of a list of them."""
    while isinstance(feature, dict) and "names" not in feature:
        feature = feature.get("feature")
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    found = feature.get("names") if isinstance(feature, dict) else None
    return tuple(found) if isinstance(found, list) and all(isinstance(name, str) for name in found) else ()


def _json(text: bytes, pick: Callable[[Any], Any]) -> dict[str, Any]:
    try:
        found = pick(json.loads(text)) if text else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
