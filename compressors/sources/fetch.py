"""Downloads what a name stands for and opens none of it: the model is read later, where there is no network."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from compressors.errors import ModelError
from compressors.sources import hub

_PICKLE = "pytorch_model.bin"


def fetch(name: str, *, pretrained: bool) -> None:
    """Downloads into the caches of the libraries; what is there already is not downloaded again.

    Args:
        name: E.g. `timm:resnet18`. A name that nobody publishes anything under is left to who reads it.
        pretrained: Whether published weights are wanted.

    Raises:
        ModelError: It cannot be had; the message gives the reason.
    """
    prefix, _, rest = name.partition(":")
    if prefix in ("transformers", "diffusers"):
        if not _is_built_in(prefix, rest) and hub.is_repository(rest):
            hub.download(rest, weights=pretrained)
        return
    try:
        _fetch_of_registry(prefix, rest)
    except Exception as exc:  # the clients raise whatever their transport stumbles over
        reason = next((line for line in str(exc).splitlines() if line.strip()), "")
        raise ModelError(
            f"the published weights of {name} cannot be downloaded ({type(exc).__name__}: {reason[:200]}); "
            "give a weights file"
        ) from exc


def _is_built_in(prefix: str, name: str) -> bool:
    if "/" in name:
        return False
    if prefix == "diffusers":
        return True
    from transformers import CONFIG_MAPPING

    return name in CONFIG_MAPPING


def _fetch_of_registry(prefix: str, name: str) -> None:
    if prefix == "torchvision":
        from torchvision import models

        if name in models.list_models() and len(weights := models.get_model_weights(name)):
            save(weights.DEFAULT.url, check=True)
        return
    import timm

    config: Any = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        return
    if config.hf_hub_id:
        _fetch_of_timm(config.hf_hub_id, config.hf_hub_filename or _PICKLE)
    elif config.url:
        save(config.url, check=False)


def _fetch_of_timm(repository: str, file: str) -> None:
    """Downloads tensors where there are any, else the pickle that is read as tensors only."""
    from huggingface_hub import snapshot_download

    name, _, revision = repository.partition("@")
    safe = {"model.safetensors", f"{Path(file).stem}.safetensors"}
    options: dict[str, Any] = {"revision": revision or None, "etag_timeout": 10}
    folder = Path(snapshot_download(name, allow_patterns=[*safe, "config.json"], **options))
    if not any(folder.glob("*.safetensors")):
        snapshot_download(name, allow_patterns=[file, "config.json"], **options)


def save(url: str, *, check: bool) -> Path:
    """Downloads a file to where `torch.hub` looks for it.

    Args:
        url: Of the file.
        check: Whether its name says how its SHA-256 begins.
    """
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PurePosixPath(urlparse(url).path).name
    if not path.exists():
        begins = torch.hub.HASH_REGEX.search(path.name) if check else None
        torch.hub.download_url_to_file(url, str(path), begins.group(1) if begins else None, progress=False)
    return path
