"""A folder, zip or tar with config and weights, as transformers and diffusers save their models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressors.errors import ModelError, OptionError
from compressors.sources import diffusers_models, transformers_models
from compressors.sources.configs import read_config
from compressors.sources.image_processor import read_processor
from compressors.sources.source import ModelSource
from compressors.sources.trace import Traced
from compressors.sources.unpack import open_folder


def read(source: ModelSource) -> Traced:
    """Returns the model in the folder.

    Raises:
        UnsafeModelError: Its config asks for code, its weights are more than tensors, or its files lie outside it.
        ModelError: It is damaged, or config and weights do not belong together.
    """
    path = _path(source)
    with open_folder(path) as folder:
        if (folder / "model_index.json").exists() or not _is_transformers(folder, path.name):
            return diffusers_models.read_folder(folder, source, path.name)
        return transformers_models.read_folder(folder, source, path.name)


def preprocessing(source: ModelSource) -> dict[str, Any] | None:
    """Returns what `preprocessor_config.json` says; see `compressors.sources.preprocessing`."""
    path = _path(source)
    with open_folder(path) as folder:
        place = folder / "preprocessor_config.json"
        if not place.is_file():
            return None
        return read_processor(read_config(place, path.name))


def _is_transformers(folder: Path, where: str) -> bool:
    return "_class_name" not in read_config(folder / "config.json", where)


def _path(source: ModelSource) -> Path:
    if source.path is None:
        raise OptionError("source.path", "a folder source needs the path of the folder, zip or tar")
    if not source.path.exists():
        raise ModelError(f"{source.path.name}: there is no such file or folder")
    return source.path
