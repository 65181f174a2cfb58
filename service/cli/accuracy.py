"""The accuracy of an ONNX file on labelled samples, prepared as they were for the report."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compressors.graph import TensorSpec
from deploy.evaluate import EvaluationSettings, evaluate
from deploy.modelfile import open_model
from deploy.runtimes import SessionSettings, find_runtime
from service.cli.errors import InputError
from service.data import Columns, DataError, TokenRecipe, load_tokenizer, open_split, resolve, takes_tokens
from service.data.opening import Recipe
from service.spec import Preprocessing

if TYPE_CHECKING:
    from deploy.evaluate import Accuracy
    from deploy.tensors import TensorInfo


@dataclass(frozen=True)
class Question:
    """What to score, and on what.

    Attributes:
        files: ONNX files with the same input.
        split: A Parquet file, an `.npz` file or a folder of class folders.
        preprocessing: How samples become inputs; None for what the report beside the first file says.
        runtime: What runs the files.
        columns: Which columns hold the samples; None for the usual ones.
        tokenizer: Folder with the tokenizer of a model that takes texts.
    """

    files: tuple[Path, ...]
    split: Path
    preprocessing: Preprocessing | None
    runtime: str
    columns: Columns | None = None
    tokenizer: Path | None = None


def score(question: Question) -> tuple[Accuracy, ...]:
    """Returns the accuracy of each file.

    Raises:
        InputError: The samples are missing, without labels, or do not fit the model.
        DeployError: A file cannot be run.
    """
    if not question.split.exists():
        raise InputError(f"--data {question.split} does not exist; give a Parquet or .npz file or a class folder")
    try:
        recipe = _recipe(question)
        with tempfile.TemporaryDirectory(prefix="shoal-") as work:
            samples = open_split(question.split, "FORMAT_UNSPECIFIED", recipe, Path(work), columns=question.columns)
            if not samples.labelled:
                raise InputError(f"--data {question.split} has samples without labels; accuracy needs a label for each")
            settings = EvaluationSettings(question.runtime)
            return tuple(evaluate(path, samples.numpy_batches(64), settings) for path in question.files)
    except DataError as exc:
        raise InputError(str(exc)) from exc


def _recipe(question: Question) -> Recipe:
    first = question.files[0]
    open_model(first)  # refuses what must not be loaded
    inputs = find_runtime(question.runtime).load(first, SessionSettings()).inputs
    for each in inputs:
        if None in each.shape:
            raise InputError(f"{first} leaves its input's shape {each.shape} open; samples cannot be fitted to it")
    fixed = tuple(side for side in inputs[0].shape if side is not None)
    if len(inputs) > 1 or not inputs[0].dtype.startswith("float"):
        specs = tuple(map(_spec, inputs))
        texts = question.tokenizer is not None and takes_tokens(specs)
        return TokenRecipe(
            specs, load_tokenizer(question.tokenizer, fixed[0]) if texts and question.tokenizer else None
        )
    if question.preprocessing is not None:
        return resolve(question.preprocessing, {}, fixed)
    return resolve(*_as_reported(first), fixed)


def _spec(info: TensorInfo) -> TensorSpec:
    shape = tuple(side for side in info.shape if side is not None)
    return TensorSpec(info.name, shape, getattr(torch, info.dtype), info.low, info.high)


def _as_reported(file: Path) -> tuple[Preprocessing, dict[str, Any]]:
    """Returns what the job and what the model's configuration said, from the report beside the file; else nothing."""
    try:
        described = json.loads((file.parent / "report.json").read_bytes())["data"]["preprocessing"]
        origin = described["origin"]
        asked = {name: described[name] for name in origin if origin[name] == "job" and described[name] is not None}
        names = {"mean": "mean", "std": "std", "interpolation": "interpolation", "crop_fraction": "crop_pct"}
        config = {names[name]: described[name] for name in names if origin.get(name) == "model"}
        config["squash"] = described.get("squash", False)
        return Preprocessing.model_validate(asked), config
    except (OSError, ValueError, KeyError, TypeError):
        return Preprocessing(), {}
