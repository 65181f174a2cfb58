"""What a job works on: the model and the samples that its work order names."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compressors import problem
from compressors.graph import Graph, TensorSpec
from compressors.sources import ModelSource, load, preprocessing
from compressors.sources.tokenizer import copy_tokenizer
from compressors.tasks import is_denoiser, noised
from deploy.digest import file_digest
from service.data import (
    TRAIN,
    VALIDATION,
    Columns,
    DataError,
    Parts,
    Split,
    TokenRecipe,
    check_against,
    check_same_classes,
    load_tokenizer,
    open_split,
    parts,
    resolve,
    takes_tokens,
)
from service.data.arrays import holds_array
from service.data.opening import Recipe
from service.pipeline.imported import check_import, onnx_file
from service.spec import DataSplit, NamedModel
from service.worker.messages import Task, WorkOrder


@dataclass(frozen=True)
class Model:
    """A loaded model and where it came from.

    Attributes:
        graph: The lifted model.
        config: What its architecture says of preprocessing; empty for a `.pt2` or an ONNX file.
        source: The source in words, e.g. `timm:resnet18` or the file's name.
        sha256: Of the file that was loaded, None where there was none.
    """

    graph: Graph
    config: Mapping[str, Any]
    source: str
    sha256: str | None


@dataclass(frozen=True)
class Samples:
    """The job's samples, by use.

    Attributes:
        parts: Training samples: for fitting, for choices, for calibration.
        validation: What the report's figures are measured on; None without.
        total: Training samples before they were divided.
        feeds: The same as networks take them.
    """

    parts: Parts
    validation: Split | None
    total: int
    feeds: Feeds


@dataclass(frozen=True)
class Feeds:
    """The job's samples as networks take them: a denoiser's images with noise in them, others as they are.

    Attributes:
        fit: For fine-tuning.
        selection: For choices.
        calibration: For closed-form fits.
        validation: For the report's figures; None without.
    """

    fit: problem.Samples
    selection: problem.Samples
    calibration: problem.Samples
    validation: problem.Samples | None


def load_model(order: WorkOrder) -> Model:
    """Loads, checks and lifts the model that the order names.

    Raises:
        ModelError: It cannot be used; the message says why.
    """
    source = _engine_source(order)
    file = source.path or source.weights
    digest = None if file is None else file_digest(file)
    if source.kind == "onnx":
        source = replace(source, path=onnx_file(file or Path(), order.folder / "imported"))
    graph = load(source)
    if source.path is not None and source.kind == "onnx":
        check_import(source.path, graph)
    return Model(graph, preprocessing(source) or {}, source.name or _KINDS[source.kind], digest)


_KINDS = {"pt2": "a .pt2 file", "onnx": "an ONNX file", "folder": "a folder of a model"}


def _engine_source(order: WorkOrder) -> ModelSource:
    """Returns what the engine is asked to load: what the order names, as local files."""
    asked = order.spec.model
    common: dict[str, Any] = {
        "sample_shape": asked.sample_shape or None,
        "input_shapes": {shape.name: shape.sizes for shape in asked.input_shapes},
    }
    if asked.pt2_artifact is not None:
        return ModelSource(kind="pt2", path=order.files[asked.pt2_artifact], **common)
    if asked.onnx_artifact is not None:
        return ModelSource(kind="onnx", path=order.files[asked.onnx_artifact], **common)
    if asked.folder_artifact is not None:
        return ModelSource(kind="folder", path=order.files[asked.folder_artifact], **common)
    assert asked.named is not None
    return ModelSource(
        kind="named",
        name=asked.named.architecture,
        weights=order.files.get(asked.named.weights_artifact or ""),
        num_classes=asked.named.num_classes,
        options=_named_options(asked.named, order.task),
        **common,
    )


def _named_options(named: NamedModel, task: Task) -> dict[str, object]:
    """Returns what the engine must know besides the name; only an analysis may do without weights."""
    options: dict[str, object] = {"random_weights": True} if task == "analyze" else {}
    if named.pretrained:
        options = {"pretrained": True}
    return options | ({"task": named.task} if named.task else {})


def load_samples(order: WorkOrder, model: Model, outputs: int | None) -> Samples:
    """Opens and divides the samples that the order names.

    Args:
        order: The work order.
        model: The model that they are for.
        outputs: Number of classes that it tells apart; None where labels mean nothing to it.

    Raises:
        DataError: They cannot be used, or there are none.
    """
    reference = order.spec.data
    if reference.train is None:
        raise DataError(
            TRAIN,
            f"the strategy {order.spec.strategy.name!r} fits its cuts on samples and got none; "
            "give training samples, labelled or not (a few hundred are enough without fine-tuning)",
        )
    recipe = _recipe(order, model)
    train = _split(order, reference.train, recipe, TRAIN, outputs)
    validation = None
    if reference.validation is not None:
        validation = _split(order, reference.validation, recipe, VALIDATION, outputs)
        if outputs is not None:
            check_same_classes(train, validation)
    divided = parts(train, order.spec.seed)
    return Samples(divided, validation, len(train), _feeds(divided, validation, model.graph, order.spec.seed))


def _feeds(divided: Parts, validation: Split | None, graph: Graph, seed: int) -> Feeds:
    fit, selection, calibration = (
        noised(graph, part, seed=seed) for part in (divided.fit, divided.selection, divided.calibration)
    )
    return Feeds(fit, selection, calibration, None if validation is None else noised(graph, validation, seed=seed))


def _recipe(order: WorkOrder, model: Model) -> Recipe:
    """Returns how samples become the model's inputs: the one recipe of the job, for every split and every use."""
    inputs = model.graph.inputs
    if len(inputs) == 1 and inputs[0].dtype.is_floating_point:
        return resolve(order.spec.preprocessing, model.config, inputs[0].shape)
    if is_denoiser(model.graph) and not _brings_timesteps(order):
        return _clean(order, model, tuple(spec for spec in inputs if spec.name != "timestep"))
    if not takes_tokens(inputs):
        return TokenRecipe(inputs)
    order.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=order.folder, prefix="tokenizer-"))
    copy_tokenizer(_engine_source(order), folder)
    return TokenRecipe(inputs, load_tokenizer(folder, inputs[0].shape[0]))


def _clean(order: WorkOrder, model: Model, inputs: tuple[TensorSpec, ...]) -> Recipe:
    """Returns how a denoiser's samples are read where noise and timesteps are put in later: images, in [-1, 1]."""
    if len(inputs) > 1:
        return TokenRecipe(inputs)
    channels = inputs[0].shape[0]
    config = {"mean": (0.5,) * channels, "std": (0.5,) * channels, **model.config}
    return resolve(order.spec.preprocessing, config, inputs[0].shape)


def _brings_timesteps(order: WorkOrder) -> bool:
    """Returns whether the training samples are ready inputs, timesteps among them."""
    train = order.spec.data.train
    return train is not None and holds_array(order.files[str(train.artifact or train.server_path)], "timestep")


def _split(order: WorkOrder, asked: DataSplit, recipe: Recipe, field: str, outputs: int | None) -> Split:
    reference = order.spec.data
    columns = Columns(reference.text_columns, reference.image_column, reference.label_column)
    work = order.folder / "samples"
    work.mkdir(parents=True, exist_ok=True)
    path = order.files[str(asked.artifact or asked.server_path)]
    split = open_split(path, asked.format, recipe, work, field, columns)
    if outputs is None:
        return split
    check_against(split, outputs)
    return split.widened(outputs)
