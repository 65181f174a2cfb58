"""What a job asks for, checked. The one place that holds the field rules of the API.

Field names and nesting are those of `protos/shoal/v1/optimization_job.proto`, so that the location of a pydantic error
is the field path of a BadRequest violation.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from deploy.devices import DEVICE, explain_misfit
from service.tasknames import OTHER_TASK_NAMES, TaskName

ArtifactName = Annotated[str, StringConstraints(pattern=r"^artifacts/[a-z0-9-]{4,64}$")]
ARCHITECTURE = r"^(timm|torchvision):[A-Za-z0-9_.]+$|^(transformers|diffusers):[A-Za-z0-9_][A-Za-z0-9_./-]*$"
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Fraction = Annotated[float, Field(gt=0, le=1)]

LOCAL = "local/"
"""Before the name of a device of the server's own machine."""

AGENT = "agent/"
"""Before the name of an agent, whose machine has the device."""

TARGET_DEVICE = rf"^({LOCAL}{DEVICE}|{AGENT}[a-z][a-z0-9-]{{0,62}}(/{DEVICE})?)$"
"""The devices that a job may name. Whether the server has it is checked when the job is created."""

MAX_TIME_LIMIT = timedelta(days=7)
PERCENTILES = (50.0, 90.0, 95.0, 99.0)


PrecisionName = Literal["PRECISION_FP32", "PRECISION_FP16", "PRECISION_BF16", "PRECISION_INT8", "PRECISION_AUTO"]
"""What the network that ships may be written in."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NamedModel(_Frozen):
    """An architecture from a registry, with its weights."""

    architecture: Annotated[str, StringConstraints(pattern=ARCHITECTURE, max_length=128)]
    weights_artifact: ArtifactName | None = None
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    pretrained: bool = False
    task: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]*$", max_length=64)] = ""

    @model_validator(mode="after")
    def _one_kind_of_weights(self) -> NamedModel:
        if self.pretrained and self.weights_artifact is not None:
            raise ValueError("pretrained downloads weights, and weights_artifact brings them; give one of the two")
        return self


class InputShape(_Frozen):
    """The shape of one input, without the batch."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(max_length=16)]


class ModelSource(_Frozen):
    """Exactly one source."""

    pt2_artifact: ArtifactName | None = None
    onnx_artifact: ArtifactName | None = None
    folder_artifact: ArtifactName | None = None
    named: NamedModel | None = None
    sample_shape: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = ()
    input_shapes: Annotated[tuple[InputShape, ...], Field(max_length=32)] = ()

    @model_validator(mode="after")
    def _one_source(self) -> ModelSource:
        sources = (self.pt2_artifact, self.onnx_artifact, self.folder_artifact, self.named)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("exactly one of pt2_artifact, onnx_artifact, folder_artifact and named must be given")
        return self

    @field_validator("input_shapes")
    @classmethod
    def _each_input_once(cls, value: tuple[InputShape, ...]) -> tuple[InputShape, ...]:
        names = [shape.name for shape in value]
        if len(set(names)) != len(names):
            raise ValueError("an input must not be named twice")
        return value


class Budget(_Frozen):
    """The latency to reach: milliseconds, or a fraction of the original's."""

    latency_ms: Annotated[float, Field(gt=0)] | None = None
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    percentile: float = 50.0
    batch: Annotated[int, Field(ge=1, le=4096)] = 1

    @field_validator("percentile")
    @classmethod
    def _known_percentile(cls, value: float) -> float:
        if value not in PERCENTILES:
            raise ValueError(f"must be one of {', '.join(f'{p:g}' for p in PERCENTILES)}")
        return value

    @model_validator(mode="after")
    def _one_limit(self) -> Budget:
        if (self.latency_ms is None) == (self.fraction is None):
            raise ValueError("exactly one of latency_ms and fraction must be given")
        return self


class Target(_Frozen):
    """Where the network will run."""

    device: Annotated[str, StringConstraints(pattern=TARGET_DEVICE, max_length=80)] = f"{LOCAL}cpu"
    runtime: Literal["onnxruntime", "onnxruntime-tensorrt", "openvino", "tensorrt"] = "onnxruntime"
    precision: PrecisionName = "PRECISION_FP32"
    threads: Annotated[int, Field(ge=1, le=256)] = 1

    @field_validator("device", "runtime", mode="before")
    @classmethod
    def _empty_is_default(cls, value: str, info: Any) -> str:
        return value or str(cls.model_fields[info.field_name].default)

    @model_validator(mode="after")
    def _runtime_runs_there(self) -> Target:
        misfit = explain_misfit(self.runtime, self.local_device)
        if misfit is not None:
            raise ValueError(misfit)
        return self

    @property
    def local_device(self) -> str:
        """The device as its own machine calls it, `cpu` or `cuda:N`."""
        if self.agent is None:
            return self.device.removeprefix(LOCAL)
        return self.device.removeprefix(AGENT).partition("/")[2] or "cpu"

    @property
    def agent(self) -> str | None:
        """Name of the agent whose machine has the device; None for the server's own."""
        return self.device.removeprefix(AGENT).partition("/")[0] if self.device.startswith(AGENT) else None


class StrategyChoice(_Frozen):
    """Which strategy, and its own options (checked by the strategy)."""

    name: str = "layerfit"
    options: dict[str, Any] = Field(default_factory=dict)


class DataSplit(_Frozen):
    """Where one split is."""

    artifact: ArtifactName | None = None
    server_path: str | None = None
    format: Literal[
        "FORMAT_UNSPECIFIED",
        "FORMAT_CLASS_FOLDERS",
        "FORMAT_PARQUET",
        "FORMAT_NPZ",
        "FORMAT_ARROW",
        "FORMAT_WEBDATASET",
        "FORMAT_CSV",
        "FORMAT_JSONL",
    ] = "FORMAT_UNSPECIFIED"

    @model_validator(mode="after")
    def _one_location(self) -> DataSplit:
        if (self.artifact is None) == (self.server_path is None):
            raise ValueError("exactly one of artifact and server_path must be given")
        return self


class DataReference(_Frozen):
    """Samples, by split, and the columns that hold them where their names are not the usual ones."""

    train: DataSplit | None = None
    validation: DataSplit | None = None
    text_columns: Annotated[tuple[ColumnName, ...], Field(max_length=2)] = ()
    label_column: Annotated[str, StringConstraints(max_length=256)] = ""
    image_column: Annotated[str, StringConstraints(max_length=256)] = ""


class Preprocessing(_Frozen):
    """How an image becomes a model input; unset fields come from the model's configuration or the defaults."""

    mean: tuple[float, ...] = ()
    std: tuple[Annotated[float, Field(gt=0)], ...] = ()
    resize: Annotated[int, Field(ge=1, le=16_384)] | None = None
    crop_fraction: Fraction | None = None
    interpolation: Literal["", "bilinear", "bicubic", "nearest"] = ""
    raw: bool | None = None

    @model_validator(mode="after")
    def _same_channels(self) -> Preprocessing:
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} values and std has {len(self.std)}; give one of each per channel"
            )
        return self


class FineTuning(_Frozen):
    """Limits of the training that repairs what cutting cost."""

    disabled: bool = False
    epochs: Annotated[int, Field(ge=0, le=1000)] = 2
    batch: Annotated[int, Field(ge=2, le=8192)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = None
    patience: Annotated[int, Field(ge=0, le=1000)] = 0


class JobSpec(_Frozen):
    """What is wanted, with every default filled in."""

    model: ModelSource
    budget: Budget
    target: Target = Target()
    strategy: StrategyChoice = StrategyChoice()
    data: DataReference = DataReference()
    preprocessing: Preprocessing = Preprocessing()
    fine_tuning: FineTuning = FineTuning()
    accuracy_floor: Fraction | None = None
    time_limit: timedelta = timedelta(hours=1)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    task: TaskName | None = None
    quality_floor: float | None = None

    @field_validator("task", mode="before")
    @classmethod
    def _other_names(cls, value: Any) -> Any:
        return OTHER_TASK_NAMES.get(value, value) if isinstance(value, str) and value else value or None

    @model_validator(mode="after")
    def _one_floor(self) -> JobSpec:
        if self.accuracy_floor is not None and self.quality_floor is not None:
            raise ValueError("accuracy_floor and quality_floor bound the same figure; give one of the two")
        return self

    @field_validator("time_limit", mode="before")
    @classmethod
    def _protobuf_seconds(cls, value: Any) -> Any:
        if isinstance(value, str) and value.endswith("s"):
            return float(value[:-1])  # protobuf's JSON form of a Duration, "3600.5s"
        return value

    @field_validator("time_limit")
    @classmethod
    def _time_limit_range(cls, value: timedelta) -> timedelta:
        if not timedelta(seconds=10) <= value <= MAX_TIME_LIMIT:
            raise ValueError("must be between 10 seconds and 7 days")
        return value
