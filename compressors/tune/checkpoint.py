"""The state of a training in a folder, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from pathlib import Path

    from compressors.graph import Graph
    from compressors.tune.config import TuneConfig

FILE: Final = "training.pt"
_FREE: Final = ("max_seconds", "checkpoint", "regulariser", "processes")
"""What may differ between a training and the one that goes on from it."""


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes the state, tensors and plain values, in place of the one before; a crash leaves one of the two."""
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / f"{FILE}.part"
    with written.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    written.replace(folder / FILE)


def load(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Returns the state of the training that has this fingerprint; None where there is none that can be read."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
        # Going on would have saved time; starting over is right as well.
        return None
    same = isinstance(state, dict) and state.get("fingerprint") == fingerprint
    return state if same else None


def fingerprint(original: Graph, candidate: Graph, samples: int, config: TuneConfig) -> str:
    """Returns what tells one training from another: its two networks, its recipe and the number of its samples."""
    digest = hashlib.sha256(repr((samples, torch.__version__)).encode())
    for field in fields(config):
        if field.name not in _FREE:
            digest.update(repr((field.name, getattr(config, field.name))).encode())
    for graph in (original, candidate):
        digest.update(graph.module.code.encode())
        for name, value in graph.module.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
