"""The `config.json` of a model folder: read as data, refused where it asks for code."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from compressors.errors import ModelError, UnsafeModelError, UnsupportedModelError, reason
from compressors.sources.unpack import read_text
from compressors.sources.weights import Weights

_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
_UNSUPPORTED = {
    "quantization_config": "quantised weights; save the model in float32",
    "use_pretrained_backbone": "a backbone that would be downloaded; save the whole model",
}
_LARGEST = 2**31
_COUNTS = ("layers", "n_layer", "depth", "experts")
"""Settings whose names hold one of these are loops that build modules."""
_MOST = 4096
"""Of what such a loop builds, and of the numbers in a list."""
_RANDOM_ELEMENTS = 4 * 10**9


def read_config(path: Path, where: str) -> dict[str, Any]:
    """Returns a config's settings.

    Raises:
        UnsafeModelError: It names code that would have to be run.
        UnsupportedModelError: It asks for something that Shoal does not do.
        ModelError: It is missing, damaged, or holds numbers that no model has.
    """
    try:
        config = json.loads(read_text(path))
    except FileNotFoundError as exc:
        raise ModelError(f"{where} holds no {path.name}; a model folder has config.json beside its weights") from exc
    except (ValueError, OSError, RecursionError) as exc:
        raise ModelError(f"{where}: {path.name} is no JSON ({reason(exc)})") from exc
    if not isinstance(config, dict):
        raise ModelError(f"{where}: {path.name} holds {type(config).__name__}, not settings by name")
    for key, value in _settings(config):
        _check(key, value, where)
    return config


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields every setting, at any depth, by its own name; items of lists by the list's."""
    pending: list[tuple[str, Any]] = list(config.items())
    while pending:
        key, value = pending.pop()
        yield key, value
        if isinstance(value, dict):
            pending.extend((str(k), v) for k, v in value.items())
        elif isinstance(value, list):
            pending.extend((key, item) for item in value)


def _check(key: str, value: Any, where: str) -> None:
    if key in _CODE and value:
        raise UnsafeModelError(
            f"{where}: the config's {key!r} names code of its own, which Shoal never runs; architectures come from the "
            "library only. Export such a model with torch.export.save instead"
        )
    if key in _UNSUPPORTED and value:
        raise UnsupportedModelError(f"{where}: the config's {key!r} means {_UNSUPPORTED[key]}")
    if isinstance(value, list) and len(value) > _MOST:
        raise ModelError(f"{where}: the config's {key!r} has {len(value)} items, which no model has")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    count = isinstance(value, int) and any(part in key for part in _COUNTS)
    if not abs(value) < (_MOST if count else _LARGEST):
        raise ModelError(f"{where}: the config's {key!r} is {value}, which no model has")


def check_size(skeleton: nn.Module, weights: Weights | None, where: str) -> None:
    """Refuses a config that describes a much larger model than its weights, before anything is allocated.

    Args:
        skeleton: The model on the meta device.
        weights: What it will be filled with; None for random values.
        where: Name of the model for messages.

    Raises:
        ModelError: Parameters and buffers need more than twice as many numbers as there are weights (and a million for
            tables that are not stored), or, without weights, more than four thousand million.
    """
    tensors = [*skeleton.parameters(), *skeleton.buffers()]
    wanted = sum(math.prod(tensor.shape) for tensor in tensors)
    if weights is None:
        if wanted > _RANDOM_ELEMENTS:
            raise ModelError(
                f"{where} has {wanted:,} parameters, more than the {_RANDOM_ELEMENTS:,} allowed without weights"
            )
        return
    held = sum(value.numel() for value in weights.values())
    if wanted > 2 * held + 10**6:
        raise ModelError(
            f"{where}: the config describes a model of {wanted:,} parameters, the weights hold {held:,}; "
            "they do not belong together"
        )
