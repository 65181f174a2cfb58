"""What a delivered ONNX file takes and returns, from the file and from what was delivered beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch

from compressors.graph import TensorSpec
from deploy.modelfile import open_model
from deploy.runtimes import SessionSettings, find_runtime
from service.cli.errors import InputError
from service.data.tokens import role_of
from service.spec import Preprocessing
from service.tasknames import TASK_NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.tensors import TensorInfo


@final
@dataclass(frozen=True)
class FileEdges:
    """The edges of a model file (`compressors.graph.Edges`)."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def read_edges(file: Path, runtime: str, device: str) -> FileEdges:
    """Returns what a model file takes and returns.

    Raises:
        InputError: An input or an output has a free size besides the batch.
        DeployError: The file cannot be loaded.
    """
    open_model(file)  # refuses what must not be loaded
    session = find_runtime(runtime, device).load(file, SessionSettings(device=device))
    for what, infos in (("input", session.inputs), ("output", session.outputs)):
        for each in infos:
            if None in each.shape:
                raise InputError(f"{file} leaves its {what}'s shape {each.shape} open; samples cannot be fitted to it")
    alone = len(session.inputs) == 1
    return FileEdges(
        file.name,
        tuple(_spec(info, masks=role_of(info.name, alone=alone) == "mask") for info in session.inputs),
        tuple(_spec(info, masks=False) for info in session.outputs),
    )


def _spec(info: TensorInfo, *, masks: bool) -> TensorSpec:
    shape = tuple(side for side in info.shape if side is not None)
    low, high = (1, 2) if masks else (info.low, info.high)
    return TensorSpec(info.name, shape, getattr(torch, info.dtype), low, high)


@dataclass(frozen=True)
class Reported:
    """What the report beside a file says of how it was judged; defaults where there is none.

    Attributes:
        preprocessing: What the job asked for.
        config: What the model's configuration said of preprocessing.
        task: Of the job; None where it is not known.
        seed: Of the job: a denoiser's noise is drawn from it.
    """

    preprocessing: Preprocessing
    config: dict[str, Any]
    task: str | None = None
    seed: int = 0


def read_reported(file: Path) -> Reported:
    """Returns what the report beside a file says; the defaults where there is none, or none that can be read."""
    try:
        report = json.loads((file.parent / "report.json").read_bytes())
        asked, config = _preprocessing(report["data"]["preprocessing"])
    except (OSError, ValueError, KeyError, TypeError):
        return Reported(Preprocessing(), {})
    task, seed = report.get("task"), report.get("seed")
    return Reported(asked, config, task if task in TASK_NAMES else None, seed if isinstance(seed, int) else 0)


def _preprocessing(described: dict[str, Any]) -> tuple[Preprocessing, dict[str, Any]]:
    origin = described.get("origin", {})
    asked = {name: described[name] for name in origin if origin[name] == "job" and described[name] is not None}
    names = {"mean": "mean", "std": "std", "interpolation": "interpolation", "crop_fraction": "crop_pct"}
    config = {names[name]: described[name] for name in names if origin.get(name) == "model"}
    config["squash"] = described.get("squash", False)
    return Preprocessing.model_validate(asked), config
