"""Denoising networks of the diffusers library, from a folder or a name."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from compressors.errors import ModelError, UnsupportedModelError
from compressors.graph import TensorSpec
from compressors.sources import hub
from compressors.sources.configs import check_size, read_config
from compressors.sources.edges import shaped
from compressors.sources.source import ModelSource
from compressors.sources.trace import Traced, fixed_seed, trace, uninitialised
from compressors.sources.weights import Weights, fit_weights, read_folder_weights, read_weights

_CLASSES = ("UNet2DModel", "UNet2DConditionModel")
_TIMESTEPS = 1000
"""Of the schedules that such networks are trained with; the network itself does not state it."""
_TEXT_TOKENS = 77
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""How attention was named in files that diffusers wrote before version 0.15."""

BUILT_IN = MappingProxyType(
    {
        "ddpm-cifar10": {
            "_class_name": "UNet2DModel",
            "sample_size": 32,
            "in_channels": 3,
            "out_channels": 3,
            "layers_per_block": 2,
            "block_out_channels": [128, 256, 256, 256],
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
            "downsample_padding": 0,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "norm_eps": 1e-6,
            "attention_head_dim": None,
        }
    }
)
"""Configs by name: the CIFAR-10 network of "Denoising Diffusion Probabilistic Models", 2020, 35.7 million weights."""


def read_named(source: ModelSource, name: str) -> Traced:
    """Returns a built-in network, or one of the hub's.

    Raises:
        ModelError: See `build`; or the name is not known, or cannot be downloaded.
    """
    config = BUILT_IN.get(name)
    folder = None
    if config is None:
        if not hub.is_repository(name) or "/" not in name:
            known = ", ".join(f"diffusers:{known}" for known in BUILT_IN)
            raise ModelError(f"diffusers has no built-in model {name!r}; known: {known}, and diffusers:OWNER/MODEL")
        folder = _network(hub.download(name, weights=bool(source.options.get("pretrained"))))
        config = read_config(folder / "config.json", name)
    weights: Weights | None = None
    if source.weights is not None:
        weights = read_weights(source.weights)
    elif folder is not None and source.options.get("pretrained"):
        weights = read_folder_weights(folder, name)
    elif not source.options.get("random_weights"):
        raise ModelError(f"{source.name} needs weights: give a safetensors file or a state dict")
    return read_config_and_weights(config, weights, source, str(source.name))


def read_folder(folder: Path, source: ModelSource, where: str) -> Traced:
    """Returns the network in a folder with config and weights, or in the `unet` folder of a whole pipeline."""
    folder = _network(folder)
    config = read_config(folder / "config.json", where)
    weights = None if source.options.get("random_weights") else read_folder_weights(folder, where)
    return read_config_and_weights(config, weights, source, where)


def _network(folder: Path) -> Path:
    return folder / "unet" if not (folder / "config.json").exists() and (folder / "unet").is_dir() else folder


def read_config_and_weights(config: Any, weights: Weights | None, source: ModelSource, where: str) -> Traced:
    """Returns the network that a config describes as a program.

    Args:
        config: Checked settings; `_class_name` names the class.
        weights: By name; random where there are none.
        source: What the user asked for.
        where: The model's name for messages.

    Raises:
        UnsupportedModelError: The class is not a denoiser that Shoal knows, or cannot be traced.
        ModelError: Config or weights do not fit.
    """
    model = build(config, weights, where)
    return trace(model.eval(), _inputs(model, config, source), where)


def build(config: Any, weights: Weights | None, where: str) -> nn.Module:
    """Returns the network with its weights; see `read_config_and_weights`."""
    chosen = _class(config, where)
    known = inspect.signature(chosen.__init__).parameters
    settings = {key: value for key, value in config.items() if not key.startswith("_")}
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise ModelError(f"{where}: {chosen.__name__} of the installed diffusers has no setting {unknown[0]!r}")
    try:
        with torch.device("meta"):
            skeleton = chosen(**settings)
        check_size(skeleton, weights, where)
        if weights is None:
            with fixed_seed():
                return chosen(**settings)  # type: ignore[no-any-return]
        with uninitialised():
            model: nn.Module = chosen(**settings)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ZeroDivisionError) as exc:
        raise ModelError(f"{where}: the config describes no {chosen.__name__} ({exc})") from exc
    fit_weights(model, _renamed(weights, model), where)
    return model


def _class(config: Any, where: str) -> Any:
    name = config.get("_class_name")
    if name not in _CLASSES:
        raise UnsupportedModelError(f"{where} is a {name!r}; of diffusers Shoal takes {' and '.join(_CLASSES)}")
    try:
        import diffusers
    except ImportError as exc:
        raise ModelError(
            f"{where} needs diffusers; install Shoal with its extra: pip install 'shoal[huggingface]'"
        ) from exc
    return getattr(diffusers, name)


def _renamed(weights: Weights, model: nn.Module) -> Weights:
    """Returns the weights under today's names."""
    wanted = model.state_dict()
    renamed = {}
    for key, value in weights.items():
        new = key
        if key not in wanted:
            for old, today in _OLD_NAMES.items():
                new = new.replace(old, today)
        renamed[new] = value
    return renamed


def _inputs(model: nn.Module, config: Any, source: ModelSource) -> tuple[TensorSpec, ...]:
    """Returns the noisy sample, the timestep of each, and what a conditional network attends to."""
    settings: Any = model.config
    size = settings.sample_size or 32
    height, width = size if isinstance(size, list | tuple) else (size, size)
    specs = [
        TensorSpec("sample", (settings.in_channels, height, width)),
        TensorSpec("timestep", (), torch.int64, 0, _TIMESTEPS),
    ]
    if config["_class_name"] == "UNet2DConditionModel":
        cross = settings.cross_attention_dim
        cross = cross if isinstance(cross, int) else cross[-1]
        specs.append(TensorSpec("encoder_hidden_states", (_TEXT_TOKENS, settings.encoder_hid_dim or cross)))
    labels = getattr(settings, "num_class_embeds", None)
    if labels:
        specs.append(TensorSpec("class_labels", (), torch.int64, 0, labels))
    return shaped(specs, source, main="sample")
