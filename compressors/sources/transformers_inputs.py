"""What a transformers model is called with, worked out from its configuration and the arguments of its `forward`."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from compressors.errors import OptionError, UnsupportedModelError
from compressors.graph import TensorSpec
from compressors.sources.edges import shaped
from compressors.sources.source import ModelSource

_TOKENS = 128
_AUDIO_SAMPLES = 16_000


def inputs(model: nn.Module, config: Any, source: ModelSource) -> tuple[TensorSpec, ...]:
    """Returns the model's inputs, main input first.

    Sequences have 128 tokens, or as many as the model has positions where these are fewer; audio has one second at
    16 kHz; images have the config's size. Inputs that `input_shapes` names and `forward` knows are added.

    Raises:
        OptionError: The user names an input that the model does not have.
        UnsupportedModelError: The main input is of a kind that Shoal does not know.
    """
    arguments = set(inspect.signature(model.forward).parameters)
    main = str(getattr(model, "main_input_name", "input_ids"))
    builder = _MAIN.get(main)
    if builder is None:
        raise UnsupportedModelError(f"{type(model).__name__} takes {main!r}, which Shoal does not know how to make")
    specs = builder(config, arguments)
    known = {spec.name for spec in specs}
    for name, shape in source.input_shapes.items():
        if name not in known:
            if name not in arguments:
                raise OptionError("source.input_shapes", f"{type(model).__name__} has no input {name!r}")
            specs.append(_extra(name, tuple(shape)))
    return shaped(specs, source, main)


def _text(config: Any, arguments: set[str]) -> list[TensorSpec]:
    text = config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    length = min(_TOKENS, positions) if isinstance(positions, int) and positions > 0 else _TOKENS
    specs = [TensorSpec("input_ids", (length,), torch.int64, 0, text.vocab_size)]
    if "attention_mask" in arguments:
        specs.append(TensorSpec("attention_mask", (length,), torch.int64, 1, 2))
    segments = getattr(text, "type_vocab_size", 0) or 0
    if "token_type_ids" in arguments and segments > 1:
        specs.append(TensorSpec("token_type_ids", (length,), torch.int64, 0, segments))
    if config.is_encoder_decoder and "decoder_input_ids" in arguments:
        specs.append(TensorSpec("decoder_input_ids", (length,), torch.int64, 0, text.vocab_size))
    return specs


def _image(config: Any, _arguments: set[str]) -> list[TensorSpec]:
    config = getattr(config, "vision_config", config)
    size = getattr(config, "image_size", None) or 224
    height, width = size if isinstance(size, list | tuple) else (size, size)
    shape = (getattr(config, "num_channels", 3), height, width)
    frames = getattr(config, "num_frames", None)
    return [TensorSpec("pixel_values", (frames, *shape) if frames else shape)]


def _audio(config: Any, _arguments: set[str]) -> list[TensorSpec]:
    bins, frames = getattr(config, "num_mel_bins", None), getattr(config, "max_length", None)
    shape = (frames, bins) if bins and frames and hasattr(config, "patch_size") else (_AUDIO_SAMPLES,)
    return [TensorSpec("input_values", shape)]


def _features(config: Any, arguments: set[str]) -> list[TensorSpec]:
    specs = [TensorSpec("input_features", (config.num_mel_bins, 2 * config.max_source_positions))]
    if "decoder_input_ids" in arguments:
        specs.append(TensorSpec("decoder_input_ids", (_TOKENS,), torch.int64, 0, config.vocab_size))
    return specs


_MAIN = {"input_ids": _text, "pixel_values": _image, "input_values": _audio, "input_features": _features}


def _extra(name: str, shape: tuple[int, ...]) -> TensorSpec:
    """Returns an input that only the user asked for: masks and ids are integers, everything else is not."""
    if name.endswith("mask"):
        return TensorSpec(name, shape, torch.int64, 1, 2)
    return TensorSpec(name, shape, torch.int64) if name.endswith("_ids") else TensorSpec(name, shape)
