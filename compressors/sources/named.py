"""Architectures by name, weights as data: the code is the registry's, never the user's."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, final

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from compressors.errors import ModelError, OptionError, UnsafeModelError, UnsupportedModelError
from compressors.sources.source import ModelSource

_WRAPPERS = ("state_dict_ema", "state_dict", "model_state_dict", "model")


class Registry(Protocol):
    """A library of architectures."""

    def names(self) -> list[str]:
        """Returns every architecture it can build."""
        ...

    def build(self, name: str, num_classes: int | None, sample_shape: tuple[int, ...] | None) -> nn.Module:
        """Returns the architecture with random weights; downloads nothing."""
        ...

    def preprocessing(self, name: str) -> dict[str, Any] | None:
        """Returns what the architecture's config says about its inputs."""
        ...


def read(source: ModelSource) -> ExportedProgram:
    """Returns the architecture with the user's weights as a program with a free batch size.

    Raises:
        ModelError: The name is unknown, or the weights do not fit.
        UnsafeModelError: The weights file holds more than tensors.
        OptionError: The sample shape is needed and missing.
    """
    registry, name = _find(source)
    shape = source.sample_shape or (registry.preprocessing(name) or {}).get("input_size")
    if shape is None:
        raise OptionError(
            "source.sample_shape", f"{source.name} has no config that states its input size; give the sample shape"
        )
    model = registry.build(name, source.num_classes, source.sample_shape)
    if source.weights is not None:
        _load_weights(model, read_weights(source.weights), source)
    elif not source.options.get("random_weights"):
        raise ModelError(f"{source.name} needs weights: give a safetensors file or a state dict")
    return _export(model.eval(), tuple(shape), str(source.name))


def preprocessing(source: ModelSource) -> dict[str, Any] | None:
    """Returns the config's preprocessing; see `compressors.sources.preprocessing`."""
    registry, name = _find(source)
    return registry.preprocessing(name)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors in a safetensors file or a state dict.

    Raises:
        UnsafeModelError: The file is a pickle of more than tensors.
        ModelError: The file is damaged, or holds no state dict.
    """
    if not path.is_file():
        raise ModelError(f"{path.name}: there is no such weights file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_state_dict(path)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path.name} holds no state dict (names to tensors), but {type(content).__name__}")
    odd = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise ModelError(f"{path.name}: {odd[0]!r} is no tensor; save model.state_dict() alone")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as exc:
        raise ModelError(f"{path.name} is no intact safetensors file: {exc}") from exc


def _read_state_dict(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise UnsafeModelError(
            f"{path.name} is a pickle of more than tensors (a whole module?), which would run code when it is loaded; "
            "save model.state_dict(), best as safetensors"
        ) from exc
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelError(f"{path.name} is truncated or damaged, or is no file of torch.save ({exc})") from exc


def _load_weights(model: nn.Module, weights: dict[str, torch.Tensor], source: ModelSource) -> None:
    """Copies the weights into the model, every one of them."""
    wanted = model.state_dict()
    missing = [key for key in wanted if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in wanted]
    shapes = [
        f"{key}: {tuple(value.shape)} in the file, {tuple(wanted[key].shape)} in the model"
        for key, value in weights.items()
        if key in wanted and value.shape != wanted[key].shape
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    found = [f"{len(keys)} {what} ({_some(keys)})" for what, keys in problems if keys]
    if found:
        hint = "; is num_classes right?" if shapes else ""
        raise ModelError(f"the weights do not fit {source.name}: {'; '.join(found)}{hint}")
    model.load_state_dict(weights, strict=False)


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")


def _export(model: nn.Module, shape: tuple[int, ...], name: str) -> ExportedProgram:
    """Traces the model with a free batch size."""
    sample = torch.zeros(2, *shape)
    try:
        return torch.export.export(model, (sample,), dynamic_shapes=({0: Dim.AUTO},))
    except Exception as exc:  # the tracer runs the architecture's code, which may raise anything
        reason = next((line for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
        raise UnsupportedModelError(f"{name} cannot be traced for samples of shape {shape}: {reason[:200]}") from exc


def _find(source: ModelSource) -> tuple[Registry, str]:
    """Returns the registry and the architecture's name in it.

    Raises:
        ModelError: There is none; the message suggests close names.
    """
    if not source.name:
        raise OptionError("source.name", "a named source needs a name such as 'timm:resnet18'")
    prefix, _, name = source.name.partition(":")
    registry = _REGISTRIES.get(prefix)
    if registry is None or not name:
        raise ModelError(
            f"unknown model name {source.name!r}; it starts with {' or '.join(f'{p}:' for p in _REGISTRIES)}"
        )
    known = registry.names()
    if name.split(".", 1)[0] not in known:
        close = [f"{prefix}:{match}" for match in difflib.get_close_matches(name, known, n=3)]
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ModelError(f"{prefix} has no architecture {name!r}{hint}")
    return registry, name


@final
class _Timm:
    """The timm library. A name may carry a pretrained tag (`resnet18.a1_in1k`), which selects the config only."""

    def names(self) -> list[str]:
        import timm

        return list(timm.list_models())

    def build(self, name: str, num_classes: int | None, sample_shape: tuple[int, ...] | None) -> nn.Module:
        import timm

        options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        config: Any = timm.get_pretrained_cfg(name)
        if sample_shape and config is not None:
            if sample_shape[0] != config.input_size[0]:
                options["in_chans"] = sample_shape[0]
            if config.fixed_input_size and tuple(sample_shape[1:]) != tuple(config.input_size[1:]):
                options["img_size"] = tuple(sample_shape[1:])
        return timm.create_model(name, pretrained=False, **options)

    def preprocessing(self, name: str) -> dict[str, Any] | None:
        import timm

        config = timm.get_pretrained_cfg(name)
        if config is None:
            return None
        return {
            "mean": tuple(config.mean),
            "std": tuple(config.std),
            "input_size": tuple(config.input_size),
            "interpolation": config.interpolation,
            "crop_pct": config.crop_pct,
        }


@final
class _Torchvision:
    """The torchvision library."""

    def names(self) -> list[str]:
        from torchvision import models

        return list(models.list_models())

    def build(self, name: str, num_classes: int | None, sample_shape: tuple[int, ...] | None) -> nn.Module:
        from torchvision import models

        options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        if name in {"googlenet", "inception_v3"}:
            options["init_weights"] = False
        if sample_shape and name.startswith("vit_"):
            options["image_size"] = sample_shape[-1]
        if name not in models.list_models(models):
            options["weights_backbone"] = None
        return models.get_model(name, weights=None, **options)  # type: ignore[no-any-return]

    def preprocessing(self, name: str) -> dict[str, Any] | None:
        from torchvision import models

        weights = models.get_model_weights(name)
        transform = weights.DEFAULT.transforms() if len(weights) else None
        crop = getattr(transform, "crop_size", None)
        if transform is None or not crop:
            return None
        return {
            "mean": tuple(transform.mean),
            "std": tuple(transform.std),
            "input_size": (len(transform.mean), crop[0], crop[-1]),
            "interpolation": transform.interpolation.value,
            "crop_pct": crop[0] / transform.resize_size[0],
        }


_REGISTRIES: dict[str, Registry] = {"timm": _Timm(), "torchvision": _Torchvision()}
