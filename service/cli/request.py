"""From flags to the messages of the API. Pure, apart from reading the `--preprocess` file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli import modelfile, parse
from service.cli.errors import InputError
from service.tasknames import OTHER_TASK_NAMES, TASK_NAMES

if TYPE_CHECKING:
    from datetime import timedelta

    from protos.shoal.v1 import optimization_job_pb2 as job_pb

_WITH_HEADS = "transformers:"
"""Names whose model can have one of several heads."""


@dataclass(frozen=True)
class ModelFlags:
    """Which network.

    Attributes:
        model: Path of a model's file, archive or folder, or a name like `timm:NAME`.
        weights: File with the weights of a named architecture.
        num_classes: Of a named architecture.
        sample_shape: Without the batch dimension.
        input_shape: The same by input name, for models with several.
        pretrained: Whether the server downloads the published weights of a named architecture.
        task: What the network is for: a task of the engine, or the head of a named transformers model.
    """

    model: str
    weights: str | None = None
    num_classes: int | None = None
    sample_shape: tuple[int, ...] | None = None
    input_shape: tuple[tuple[str, tuple[int, ...]], ...] = ()
    pretrained: bool = False
    task: str | None = None

    @property
    def label(self) -> str:
        """The model's name as people know it."""
        return self.model if parse.architecture(self.model) else Path(self.model).name


@dataclass(frozen=True)
class TargetFlags:
    """Where the network will run, and how it is timed; None leaves it to the server."""

    target: str | None = None
    runtime: str | None = None
    precision: str | None = None
    threads: int | None = None
    batch: int | None = None
    percentile: float | None = None


@dataclass(frozen=True)
class JobFlags:
    """What else a job can be told; None and empty leave it to the server."""

    budget: parse.BudgetLimit
    strategy: str | None = None
    option: tuple[tuple[str, Any], ...] = ()
    epochs: int | None = None
    patience: int | None = None
    no_finetune: bool = False
    time_limit: timedelta | None = None
    accuracy_floor: float | None = None
    quality_floor: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class PreprocessingFlags:
    """How samples become model inputs; None leaves it to the model's configuration or the defaults.

    Attributes:
        mean: Per channel.
        std: Per channel.
        preprocess: A JSON file with these and more.
        text_column: Names of one or two columns of texts; empty to go by the usual names.
        label_column: Name of the column of labels.
        image_column: Name of the column of images.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocess: str | None = None
    text_column: tuple[str, ...] = ()
    label_column: str | None = None
    image_column: str | None = None


@dataclass(frozen=True)
class Uploaded:
    """Resource names of what was uploaded; None for what there is not."""

    model: str | None = None
    weights: str | None = None
    train: str | None = None
    validation: str | None = None


def check_model(flags: ModelFlags) -> None:
    """Checks what can be known about the model without a server.

    Raises:
        InputError: No such file, another kind of file, or flags that do not go together.
    """
    try:
        named = parse.architecture(flags.model)
    except ValueError as exc:
        raise InputError(str(exc)) from exc
    if len({name for name, _ in flags.input_shape}) != len(flags.input_shape):
        raise InputError("--input-shape names an input twice")
    _check_task(flags)
    if not named:
        _check_model_file(flags)
    elif flags.weights is not None and flags.pretrained:
        raise InputError("--pretrained downloads weights, and --weights brings them; give one of the two")
    elif flags.weights is not None:
        check_file(Path(flags.weights), "--weights")


def _check_model_file(flags: ModelFlags) -> None:
    if flags.weights is not None or flags.num_classes is not None or flags.pretrained:
        raise InputError("--weights, --num-classes and --pretrained belong to names like timm:NAME; a file has its own")
    path = Path(flags.model)
    if not path.is_dir():
        if path.suffix not in modelfile.SUFFIXES:
            raise InputError(f"MODEL must be {modelfile.WANTED}; got {path}")
        check_file(path, "MODEL")
    modelfile.kind_of(path)
    modelfile.parts(path)


def _check_task(flags: ModelFlags) -> None:
    if flags.task and not engine_task(flags) and not _names_head(flags):
        raise InputError(
            f"there is no task {flags.task!r}; give one of {', '.join(TASK_NAMES)} (heads like masked-lm belong to "
            "names like transformers:NAME)"
        )


def engine_task(flags: ModelFlags) -> str:
    """Returns the task of the engine that `--task` stands for; empty where it stands for none."""
    if _names_head(flags):
        return ""
    name = (flags.task or "").replace("-", "_")
    return OTHER_TASK_NAMES.get(name, name if name in TASK_NAMES else "")


def _names_head(flags: ModelFlags) -> bool:
    """Returns whether `--task` picks the head of a transformers model, whose outputs then tell what they mean."""
    known = (*TASK_NAMES, *OTHER_TASK_NAMES)
    return flags.model.startswith(_WITH_HEADS) and bool(flags.task) and flags.task not in known


def check_file(path: Path, what: str) -> None:
    """Raises InputError unless `path` is a file that can be opened."""
    if path.is_dir():
        raise InputError(f"{what} {path} is a folder; wanted a file")
    try:
        path.open("rb").close()
    except OSError as exc:
        raise InputError(f"{what} {path} cannot be read: {exc.strerror}") from exc


def model_source(flags: ModelFlags, uploaded: Uploaded) -> job_pb.ModelSource:
    """Returns the model part of a request."""
    from protos.shoal.v1 import optimization_job_pb2 as job_pb

    source = job_pb.ModelSource(
        sample_shape=flags.sample_shape or (),
        input_shapes=[job_pb.InputShape(name=name, sizes=sizes) for name, sizes in flags.input_shape],
    )
    if uploaded.model is not None:
        setattr(source, f"{modelfile.kind_of(Path(flags.model))}_artifact", uploaded.model)
        return source
    source.named.architecture = flags.model
    source.named.weights_artifact = uploaded.weights or ""
    source.named.pretrained = flags.pretrained
    source.named.task = (flags.task or "") if _names_head(flags) else ""
    if flags.num_classes is not None:
        source.named.num_classes = flags.num_classes
    return source


def target(flags: TargetFlags) -> job_pb.Target:
    """Returns the target part of a request."""
    from protos.shoal.v1 import optimization_job_pb2 as job_pb

    precision = job_pb.Precision.Value(f"PRECISION_{(flags.precision or 'unspecified').upper()}")
    return job_pb.Target(
        device=flags.target or "", runtime=flags.runtime or "", precision=precision, threads=flags.threads
    )


def budget(limit: parse.BudgetLimit | None, flags: TargetFlags) -> job_pb.Budget:
    """Returns the budget part of a request; without a limit it only says how to time."""
    from protos.shoal.v1 import optimization_job_pb2 as job_pb

    message = job_pb.Budget(percentile=flags.percentile, batch=flags.batch)
    if limit is not None and limit.latency_ms is not None:
        message.latency_ms = limit.latency_ms
    elif limit is not None and limit.fraction is not None:
        message.fraction = limit.fraction
    return message


def job_spec(
    model: ModelFlags, target_flags: TargetFlags, samples: PreprocessingFlags, flags: JobFlags, uploaded: Uploaded
) -> job_pb.OptimizationJobSpec:
    """Returns the whole request; what no flag names is left to the server's defaults."""
    from protos.shoal.v1 import optimization_job_pb2 as job_pb

    spec = job_pb.OptimizationJobSpec(
        model=model_source(model, uploaded),
        budget=budget(flags.budget, target_flags),
        target=target(target_flags),
        preprocessing=preprocessing(samples),
        fine_tuning=job_pb.FineTuning(disabled=flags.no_finetune, epochs=flags.epochs, patience=flags.patience or 0),
        accuracy_floor=flags.accuracy_floor,
        seed=flags.seed or 0,
        task=engine_task(model),
        quality_floor=flags.quality_floor,
    )
    if flags.strategy or flags.option:
        spec.strategy.name = flags.strategy or ""
        spec.strategy.options.update(dict(flags.option))
    if samples.text_column or samples.label_column or samples.image_column:
        spec.data.text_columns[:] = samples.text_column
        spec.data.label_column = samples.label_column or ""
        spec.data.image_column = samples.image_column or ""
    if uploaded.train is not None:
        spec.data.train.artifact = uploaded.train
    if uploaded.validation is not None:
        spec.data.validation.artifact = uploaded.validation
    if flags.time_limit is not None:
        spec.time_limit.FromTimedelta(flags.time_limit)
    return spec


def preprocessing(flags: PreprocessingFlags) -> job_pb.Preprocessing:
    """Returns the preprocessing part; `--mean` and `--std` win over the file.

    Raises:
        InputError: The file cannot be read, or is not a JSON object with the fields of Preprocessing.
    """
    from google.protobuf import json_format

    from protos.shoal.v1 import optimization_job_pb2 as job_pb

    message = job_pb.Preprocessing()
    if flags.preprocess is not None:
        check_file(Path(flags.preprocess), "--preprocess")
        try:
            json_format.Parse(Path(flags.preprocess).read_bytes(), message)
        except (json_format.ParseError, UnicodeDecodeError) as exc:
            fields = ", ".join(field.name for field in message.DESCRIPTOR.fields)
            problem = " ".join(str(exc).split())
            raise InputError(
                f"--preprocess {flags.preprocess} is no JSON object with fields out of {fields}: {problem}"
            ) from exc
    if flags.mean is not None:
        message.mean[:] = flags.mean
    if flags.std is not None:
        message.std[:] = flags.std
    return message
