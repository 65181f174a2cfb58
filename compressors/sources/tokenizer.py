"""The files of the tokenizer that lies beside a model; they are copied and not read."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from compressors.sources import hub
from compressors.sources.source import ModelSource
from compressors.sources.unpack import is_archive, unpack

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
"""Names that tokenizers are saved under, and `config.json`, which says whose they are."""


def copy_tokenizer(source: ModelSource, folder: Path) -> None:
    """Copies the tokenizer's files into `folder`; nothing where the model brings none.

    Args:
        source: Where the model comes from: a folder, a zip or tar of one, or a published model.
        folder: An empty folder.

    Raises:
        ModelError: An archive is damaged or breaks a cap.
        UnsafeModelError: An archive holds unsafe names.
    """
    place = source.path
    if source.kind == "named":
        prefix, _, name = (source.name or "").partition(":")
        if prefix != "transformers" or "/" not in name or not hub.is_repository(name):
            return
        place = hub.download(name, weights=False)
    if place is None or source.kind == "pt2":
        return
    if place.is_dir():
        files = [place / name for name in FILES]
    elif is_archive(place):
        unpacked = folder / "unpacked"
        unpacked.mkdir()
        unpack(place, unpacked, wanted=_is_wanted)
        files = sorted(unpacked.rglob("*.*"), key=lambda file: len(file.parts), reverse=True)
    else:
        return
    for file in files:
        if file.is_file():
            shutil.copyfile(file, folder / file.name)


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in FILES and len(path.parts) <= 2
