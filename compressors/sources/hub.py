"""Published models of the Hugging Face hub, downloaded where a network exists."""

from __future__ import annotations

import re
from pathlib import Path

from compressors.errors import ModelError

_REPOSITORY = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
_TOKENIZERS = ["tokenizer*.json", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model"]
_CONFIGS = ["config.json", "preprocessor_config.json", "unet/config.json", *_TOKENIZERS]
_WEIGHTS = ["*.safetensors", "*.safetensors.index.json", "unet/*.safetensors", "unet/*.safetensors.index.json"]
_PICKLES = ["pytorch_model*.bin", "pytorch_model*.bin.index.json", "diffusion_pytorch_model*.bin"]


def is_repository(name: str) -> bool:
    """Says whether a name could be one of the hub's: `model` or `owner/model`."""
    return _REPOSITORY.fullmatch(name) is not None and ".." not in name


def download(name: str, *, weights: bool) -> Path:
    """Returns the folder of a published model; files that are already in the cache are not downloaded again.

    Args:
        name: The repository, e.g. `google/vit-base-patch16-224`.
        weights: Whether its weights are wanted too, not only its configs.

    Raises:
        ModelError: It cannot be had; the message gives the reason.
    """
    from huggingface_hub import snapshot_download

    patterns = _CONFIGS + (_WEIGHTS if weights else [])
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, etag_timeout=10))
        if weights and not any(folder.rglob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=_CONFIGS + _PICKLES, etag_timeout=10))
    except Exception as exc:  # the client raises whatever its transport stumbles over
        reason = next((line for line in str(exc).splitlines() if line.strip()), "")
        raise ModelError(
            f"{name!r} cannot be downloaded from the Hugging Face hub ({type(exc).__name__}: {reason[:200]}); where "
            "there is no network, give the model's folder (config.json and model.safetensors) instead"
        ) from exc
    return folder
