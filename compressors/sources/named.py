"""Architectures by name, weights as data: the code is the registry's, never the user's."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import replace
from typing import Any

from torch import nn

from compressors.errors import ModelError, OptionError
from compressors.graph import TensorSpec
from compressors.sources import diffusers_models, folder, hub, transformers_models
from compressors.sources.registries import REGISTRIES, Registry
from compressors.sources.source import ModelSource
from compressors.sources.trace import Traced, fixed_seed, trace, uninitialised
from compressors.sources.weights import fit_weights, read_weights

_LIBRARIES = {"transformers": transformers_models.read_named, "diffusers": diffusers_models.read_named}
"""Libraries whose models take more than one image."""


def read(source: ModelSource) -> Traced:
    """Returns the architecture with the user's weights as a program with a free batch size.

    Raises:
        ModelError: The name is unknown, the weights do not fit, or cannot be downloaded.
        UnsafeModelError: The weights file holds more than tensors.
        OptionError: The sample shape is needed and missing.
    """
    prefix, _, name = (source.name or "").partition(":")
    if name and prefix in _LIBRARIES:
        return _LIBRARIES[prefix](source, name)
    registry, name = _find(source)
    shape = source.sample_shape or (registry.preprocessing(name) or {}).get("input_size")
    if shape is None:
        raise OptionError(
            "source.sample_shape", f"{source.name} has no config that states its input size; give the sample shape"
        )
    model = _build(registry, name, source).eval()
    return trace(model, (TensorSpec(_argument(model), tuple(shape)),), str(source.name))


def preprocessing(source: ModelSource) -> dict[str, Any] | None:
    """Returns the config's preprocessing; see `compressors.sources.preprocessing`."""
    prefix, _, name = (source.name or "").partition(":")
    if prefix in _LIBRARIES:
        if prefix != "transformers" or "/" not in name or not hub.is_repository(name):
            return None
        return folder.preprocessing(replace(source, kind="folder", path=hub.download(name, weights=False)))
    registry, name = _find(source)
    return registry.preprocessing(name)


def _build(registry: Registry, name: str, source: ModelSource) -> nn.Module:
    """Returns the architecture with the weights that the source asks for."""
    settings = (name, source.num_classes, source.sample_shape)
    if source.weights is not None:
        weights = read_weights(source.weights)
        with uninitialised():
            model = registry.build(*settings)
        fit_weights(model, weights, str(source.name))
        return model
    if source.options.get("pretrained"):
        return _published(registry, settings, str(source.name))
    if not source.options.get("random_weights"):
        raise ModelError(f"{source.name} needs weights: give a safetensors file or a state dict, or ask for pretrained")
    with fixed_seed():
        return registry.build(*settings)


def _published(registry: Registry, settings: tuple[str, int | None, tuple[int, ...] | None], name: str) -> nn.Module:
    try:
        return registry.published(*settings)
    except Exception as exc:  # whatever the transport stumbles over
        reason = next((line for line in str(exc).splitlines() if line.strip()), "")
        raise ModelError(
            f"the published weights of {name} cannot be used ({type(exc).__name__}: {reason[:200]}); "
            "give a weights file"
        ) from exc


def _argument(model: nn.Module) -> str:
    """Returns the name of the model's one input."""
    return next(iter(inspect.signature(model.forward).parameters))


def _find(source: ModelSource) -> tuple[Registry, str]:
    """Returns the registry and the architecture's name in it.

    Raises:
        ModelError: There is none; the message suggests close names.
    """
    if not source.name:
        raise OptionError("source.name", "a named source needs a name such as 'timm:resnet18'")
    prefix, _, name = source.name.partition(":")
    registry = REGISTRIES.get(prefix)
    if registry is None or not name:
        raise ModelError(f"unknown model name {source.name!r}; it starts with {_prefixes()}")
    known = registry.names()
    if name.split(".", 1)[0] not in known:
        close = [f"{prefix}:{match}" for match in difflib.get_close_matches(name, known, n=3)]
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ModelError(f"{prefix} has no architecture {name!r}{hint}")
    return registry, name


def _prefixes() -> str:
    *most, last = (f"{prefix}:" for prefix in (*REGISTRIES, *_LIBRARIES))
    return f"{', '.join(most)} or {last}"
