"""Weights are data: tensors by name from safetensors files or state dicts, mapped from disk where that is possible."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressors.errors import ModelError, UnsafeModelError
from compressors.sources.unpack import is_archive, open_folder, read_text

_WRAPPERS = ("state_dict_ema", "state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel and compiled modules put before every name."""
_SHARED_PREFIXES = ("model.", "net.", "network.", "backbone.")
"""What training frameworks put before every name; removed only where all names have it and the model has none."""
_STEMS = ("model", "diffusion_pytorch_model", "pytorch_model")
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_SHARD = re.compile(r"[\w][\w.-]*")

Weights = dict[str, torch.Tensor]
"""Tensors by name."""


def read_weights(path: Path) -> Weights:
    """Returns the tensors in a safetensors file, a state dict, or a folder, zip or tar of such files with their index.

    Raises:
        UnsafeModelError: A file is a pickle of more than tensors, or an index names files outside its folder.
        ModelError: A file is damaged, or holds no state dict.
    """
    if path.is_dir() or is_archive(path):
        with open_folder(path) as folder:
            return read_folder_weights(folder, path.name)
    if not path.is_file():
        raise ModelError(f"{path.name}: there is no such weights file")
    return _read_file(path)


def read_folder_weights(folder: Path, where: str) -> Weights:
    """Returns the tensors of the one model in a folder: one file, or shards with their index.

    Raises:
        ModelError: There is none, or more than one.
        UnsafeModelError: See `read_weights`.
    """
    for stem in _STEMS:
        for suffix in (".safetensors", ".bin"):
            index = folder / f"{stem}{suffix}.index.json"
            if index.is_file():
                return _read_shards(index, where)
            if (folder / f"{stem}{suffix}").is_file():
                return _read_file(folder / f"{stem}{suffix}")
    found = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:3]) or "none"
        raise ModelError(
            f"{where} must hold one weights file (model.safetensors), or shards and their index "
            f"(model.safetensors.index.json); found {names}"
        )
    return _read_file(found[0])


def _read_shards(index: Path, where: str) -> Weights:
    """Returns the tensors that an index lists, each from the shard that it names."""
    try:
        written = json.loads(read_text(index))["weight_map"]
        places = {str(key): str(shard) for key, shard in written.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise ModelError(f"{where}: {index.name} is no index of shards ({exc!r})") from exc
    weights: Weights = {}
    for shard in dict.fromkeys(places.values()):
        if not _SHARD.fullmatch(shard) or Path(shard).suffix not in _SUFFIXES:
            raise UnsafeModelError(f"{where}: {index.name} names the file {shard!r}, which is not a shard beside it")
        if not (index.parent / shard).is_file():
            raise ModelError(f"{where}: {index.name} names {shard!r}, which is missing")
        tensors = _read_file(index.parent / shard)
        weights.update((key, tensors[key]) for key, place in places.items() if place == shard and key in tensors)
    missing = [key for key in places if key not in weights]
    if missing:
        raise ModelError(f"{where}: {places[missing[0]]!r} does not hold {missing[0]!r}, which {index.name} promises")
    return weights


def _read_file(path: Path) -> Weights:
    content = _read_safetensors(path) if _is_safetensors(path) else _read_state_dict(path)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path.name} holds no state dict (names to tensors), but {type(content).__name__}")
    odd = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise ModelError(f"{path.name}: {odd[0]!r} is no tensor; save model.state_dict() alone")
    strange = [str(key) for key, value in content.items() if value.is_quantized or value.layout is not torch.strided]
    if strange:
        raise ModelError(f"{path.name}: {strange[0]!r} is quantised or sparse; save plain tensors")
    return {_bare(str(key)): value for key, value in content.items()}


def _bare(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _is_safetensors(path: Path) -> bool:
    """Says whether a file is one by its name or its first bytes: a length and a JSON object."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as exc:
        raise ModelError(f"{path.name} is no intact safetensors file: {exc}") from exc


def _read_state_dict(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on formats that are refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive(path, of_torch=True))
    except pickle.UnpicklingError as exc:
        raise UnsafeModelError(
            f"{path.name} is a pickle of more than tensors (a whole module?), which would run code when it is loaded; "
            "save model.state_dict(), best as safetensors"
        ) from exc
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelError(f"{path.name} is truncated or damaged, or is no file of torch.save ({exc})") from exc


def fit_weights(model: nn.Module, weights: Weights, name: str) -> None:
    """Puts the weights into the model, every one of them; nothing is copied unless its element type changes.

    Tensors that the model ties may be stored under any of their names, and stay tied.

    Args:
        model: On the CPU; its values are replaced.
        weights: By the model's own names.
        name: What the user calls the model, for messages.

    Raises:
        ModelError: Weights are missing, unexpected, or of another shape or kind; the message names them.
    """
    wanted = model.state_dict(keep_vars=True)
    weights = _without_shared_prefix(weights, wanted)
    given = {id(wanted[key]) for key in weights if key in wanted}
    missing = [k for k in wanted if id(wanted[k]) not in given and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in wanted]
    shapes = [
        f"{key}: {tuple(value.shape)} in the file, {tuple(wanted[key].shape)} in the model"
        for key, value in weights.items()
        if key in wanted and value.shape != wanted[key].shape
    ]
    kinds = [
        f"{key}: {value.dtype} in the file, {wanted[key].dtype} in the model"
        for key, value in weights.items()
        if key in wanted and _kind(value) != _kind(wanted[key])
    ]
    refuse_misfits(
        name, {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "of another kind": kinds}
    )
    filled: dict[int, str] = {}
    for key, value in weights.items():
        other = filled.setdefault(id(wanted[key]), key)
        if other != key and not torch.equal(weights[other], value):
            raise ModelError(f"{name} ties {other!r} and {key!r}, but the file holds different values for them")
        wanted[key].data = value.detach().to(wanted[key].dtype)


def refuse_misfits(name: str, problems: Mapping[str, Iterable[str]]) -> None:
    """Raises a ModelError that names the first few weights of every problem, if there is any.

    Args:
        name: What the user calls the model.
        problems: What is wrong ("missing", "unexpected", "of another shape", ...) to the weights' names.
    """
    found = [f"{len(keys)} {what} ({_some(keys)})" for what, keys in _lists(problems) if keys]
    if found:
        hint = "; is num_classes right?" if any(problems.get("of another shape", ())) else ""
        raise ModelError(f"the weights do not fit {name}: {'; '.join(found)}{hint}")


def _lists(problems: Mapping[str, Iterable[str]]) -> list[tuple[str, list[str]]]:
    return [(what, list(keys)) for what, keys in problems.items()]


def _some(items: list[str]) -> str:
    return ", ".join(items[:3]) + (", ..." if len(items) > 3 else "")


def _kind(value: torch.Tensor) -> tuple[bool, bool]:
    return value.is_floating_point(), value.is_complex()


def _without_shared_prefix(weights: Weights, wanted: Mapping[str, torch.Tensor]) -> Weights:
    for prefix in _SHARED_PREFIXES:
        ours = any(key.startswith(prefix) for key in wanted)
        if not ours and all(key.startswith(prefix) for key in weights):
            return {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights
