"""What an image processor of the transformers library does, said in the few numbers that Shoal prepares images by.

Pixels x in [0, 255] become (x * factor - offset - mean) / std, where `rescale_factor` is 1/255 more often than not and
the offset is 1 or 0. The mean of values in [0, 1] that does the same is (mean + offset) / (255 * factor), and the
standard deviation std / (255 * factor).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers of resampling filters."""
_CROPLESS_EDGE = 384
"""ConvNeXt's processor, the only one with `crop_pct`, crops nothing from this edge on."""


def read_processor(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what a `preprocessor_config.json` says; see `compressors.sources.preprocessing`.

    Returns:
        None where it is none of an image model, or makes no sense.
    """
    size = _pair(config.get("size"))
    normalisation = _normalisation(config)
    if size is None or normalisation is None:
        return None
    mean, std = normalisation
    crop = _pair(config.get("crop_size")) if config.get("do_center_crop") else None
    fraction = crop[0] / size[0] if crop else 1.0
    squash = not _keeps_aspect(config.get("size"))
    if _number(config.get("crop_pct")) and not squash:
        squash = size[0] >= _CROPLESS_EDGE
        fraction, crop = (1.0 if squash else float(config["crop_pct"])), size
    resample = config.get("resample", 2)
    return {
        "mean": mean,
        "std": std,
        "input_size": (len(mean), *(crop or size)),
        "interpolation": _FILTERS.get(resample, "bilinear") if isinstance(resample, int) else "bilinear",
        "crop_pct": fraction,
        "squash": squash,
    }


def _normalisation(config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if config.get("do_normalize", True):
        mean, std = _numbers(config.get("image_mean")), _numbers(config.get("image_std"))
    if not _number(factor) or factor <= 0 or not mean or len(mean) != len(std) or min(std) <= 0:
        return None
    if config.get("include_top") and config.get("do_normalize", True):
        std = tuple(value * value for value in std)  # EfficientNet's processor divides twice
    unit = 255 * factor
    unit = 1.0 if math.isclose(unit, 1.0, rel_tol=1e-6) else unit
    offset = 1.0 if config.get("rescale_offset") else 0.0
    return tuple((value + offset) / unit for value in mean), tuple(value / unit for value in std)


def _numbers(value: Any) -> tuple[float, ...]:
    """Returns one number per channel; empty where they are none."""
    values = value if isinstance(value, list | tuple) else [value] * 3
    return tuple(float(each) for each in values) if values and all(map(_number, values)) else ()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _keeps_aspect(size: Any) -> bool:
    """Says whether only the shorter edge is set, and the other follows; older configs mean that by one number."""
    return not (isinstance(size, dict) and "shortest_edge" not in size)


def _pair(size: Any) -> tuple[int, int] | None:
    """Returns height and width of one of the ways in which image processors state a size."""
    if isinstance(size, dict):
        size = size.get("shortest_edge") or [size.get("height"), size.get("width")]
    sizes = size if isinstance(size, list) else [size, size]
    whole = len(sizes) == 2 and all(isinstance(edge, int) and edge > 0 for edge in sizes)
    return (sizes[0], sizes[1]) if whole else None
