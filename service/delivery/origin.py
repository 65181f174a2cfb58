"""What the model that came in says of itself: its licence, and the names of its classes. Nothing of it is checked."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import onnx
from google.protobuf.message import DecodeError

from compressors.errors import EngineError
from compressors.sources.unpack import is_archive, unpack
from service.delivery.manifest import LicenceEntry, SourceEntry
from service.spec import ModelSource
from service.worker.messages import WorkOrder

_CARD: Final = "README.md"
_CONFIG: Final = "config.json"
_MOST: Final = 1 << 20
_LONGEST: Final = 200
_MAX_LABELS: Final = 1_000_000
_UNNAMED: Final = re.compile(r"LABEL_[0-9]+")
_FRONT: Final = re.compile(r"\A﻿?---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
_LICENCE: Final = re.compile(r"^licen[cs]e:[ \t]*(.*)$", re.MULTILINE)
_ITEM: Final = re.compile(r"\s*-\s*(.+)")
_OTHER: Final = re.compile(r"^license_name:[ \t]*(.+)$", re.MULTILINE)
_KEYS: Final = frozenset({"license", "licence"})


@dataclass(frozen=True)
class Stated:
    """What a source says of itself.

    Attributes:
        licence: Its licence; None where it states none.
        labels: Names of the classes by index; None where it has none.
    """

    licence: LicenceEntry | None = None
    labels: tuple[str, ...] | None = None


def describe_source(order: WorkOrder, sha256: str | None) -> tuple[SourceEntry, tuple[str, ...] | None]:
    """Returns the model that came in, and the names that it gives its classes.

    Args:
        order: The work order.
        sha256: Of the file that was loaded.
    """
    asked = order.spec.model
    path = order.files.get(_artifact(asked) or "")
    stated = Stated()
    if path is not None and asked.folder_artifact is not None:
        stated = of_folder(path)
    elif path is not None and asked.onnx_artifact is not None:
        stated = of_onnx(path, order.folder / "imported")
    name = asked.named.architecture if asked.named is not None else path.name if path is not None else ""
    source = SourceEntry(kind=_kind(asked), name=name[:_LONGEST], sha256=sha256, licence=stated.licence)
    return source, stated.labels


def of_onnx(path: Path, unpacked: Path | None = None) -> Stated:
    """Returns what the metadata of an ONNX file say and, where it came in an archive, card and config beside it.

    Args:
        path: The file, or the archive.
        unpacked: Where the archive was unpacked, if it is one.
    """
    found = next(unpacked.rglob("*.onnx"), None) if unpacked is not None and unpacked.is_dir() else None
    licence = licence_of_metadata(found or path)
    if found is None:
        return Stated(licence)
    beside = _of_files(found.parent)
    return Stated(licence or beside.licence, beside.labels)


def licence_of_metadata(path: Path) -> LicenceEntry | None:
    """Returns the licence in the metadata of an ONNX file."""
    try:
        model = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError):
        return None
    for entry in model.metadata_props:
        if entry.key.lower() in _KEYS and entry.value.strip():
            return LicenceEntry(name=_short(entry.value), stated_in="metadata_props of the ONNX file")
    return None


def of_folder(path: Path) -> Stated:
    """Returns what model card and config of a folder, or of an archive of it, say."""
    if path.is_dir():
        return _of_files(path)
    with tempfile.TemporaryDirectory(prefix="shoal-card-") as place:
        try:
            if is_archive(path):
                unpack(path, Path(place), wanted=_is_wanted)
        except EngineError:
            return Stated()
        files = sorted(Path(place).rglob(_CONFIG), key=lambda file: len(file.parts))
        return _of_files(files[0].parent if files else Path(place))


def _of_files(folder: Path) -> Stated:
    card, config = (_text(folder / name) for name in (_CARD, _CONFIG))
    return Stated(licence_of_card(card), labels_of_config(config))


def licence_of_card(card: str) -> LicenceEntry | None:
    """Returns the licence in the YAML head of a model card: a word, a list of words, or `other` with a name."""
    front = _FRONT.match(card)
    found = _LICENCE.search(front[1]) if front else None
    if front is None or found is None:
        return None
    value = found[1].strip()
    if not value:
        items = []
        for line in front[1][found.end() :].lstrip("\n").splitlines():
            if not (item := _ITEM.fullmatch(line)):
                break
            items.append(_bare(item[1]))
        value = ", ".join(items)
    elif value.startswith("["):
        value = ", ".join(_bare(item) for item in value.strip("[]").split(","))
    name = _bare(value)
    if name == "other" and (own := _OTHER.search(front[1])):
        name = f"other: {_bare(own[1])}"
    return LicenceEntry(name=_short(name), stated_in=_CARD) if name else None


def labels_of_config(config: str) -> tuple[str, ...] | None:
    """Returns the names in `id2label`, where it names every class from 0 on; None for names that are only numbers."""
    try:
        read: Any = json.loads(config)
        named = {int(key): str(value) for key, value in read["id2label"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    whole = 0 < len(named) <= _MAX_LABELS and sorted(named) == list(range(len(named)))
    if not whole or all(_UNNAMED.fullmatch(name) for name in named.values()):
        return None
    return tuple(named[index][:_LONGEST] for index in range(len(named)))


def _artifact(asked: ModelSource) -> str | None:
    named = asked.named.weights_artifact if asked.named is not None else None
    return asked.pt2_artifact or asked.onnx_artifact or asked.folder_artifact or named


def _kind(asked: ModelSource) -> Any:
    kinds = {"pt2": asked.pt2_artifact, "onnx": asked.onnx_artifact, "folder": asked.folder_artifact}
    return next((kind for kind, artifact in kinds.items() if artifact is not None), "named")


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in {_CARD, _CONFIG} and len(path.parts) <= 2


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _MOST:
            return ""
        return file.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n")
    except OSError:
        return ""


def _bare(value: str) -> str:
    return value.partition(" #")[0].strip().strip("'\"").strip()


def _short(value: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in value).strip()[:_LONGEST]
