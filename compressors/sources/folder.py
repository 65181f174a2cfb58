"""A folder, zip or tar with config and weights, as transformers and diffusers save their models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressors.errors import ModelError, OptionError
from compressors.sources import diffusers_models, transformers_models
from compressors.sources.configs import read_config
from compressors.sources.source import ModelSource
from compressors.sources.trace import Traced
from compressors.sources.unpack import open_folder

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers of resampling filters."""


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
        config = read_config(place, path.name)
    mean, std, size = config.get("image_mean"), config.get("image_std"), _pair(config.get("size"))
    if not isinstance(mean, list) or not isinstance(std, list) or size is None:
        return None
    crop = _pair(config.get("crop_size")) if config.get("do_center_crop") else None
    return {
        "mean": tuple(mean),
        "std": tuple(std),
        "input_size": (len(mean), *(crop or size)),
        "interpolation": _FILTERS.get(config.get("resample", 2), "bilinear"),
        "crop_pct": crop[0] / size[0] if crop else float(config.get("crop_pct") or 1.0),
    }


def _is_transformers(folder: Path, where: str) -> bool:
    return "_class_name" not in read_config(folder / "config.json", where)


def _pair(size: Any) -> tuple[int, int] | None:
    """Returns height and width of one of the ways in which image processors state a size."""
    if isinstance(size, dict):
        size = size.get("shortest_edge") or [size.get("height"), size.get("width")]
    sizes = size if isinstance(size, list) else [size, size]
    whole = len(sizes) == 2 and all(isinstance(edge, int) and edge > 0 for edge in sizes)
    return (sizes[0], sizes[1]) if whole else None


def _path(source: ModelSource) -> Path:
    if source.path is None:
        raise OptionError("source.path", "a folder source needs the path of the folder, zip or tar")
    if not source.path.exists():
        raise ModelError(f"{source.path.name}: there is no such file or folder")
    return source.path
