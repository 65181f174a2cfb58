"""What is in a delivered folder, as data: `manifest.json`.

Times are milliseconds, sizes bytes, accuracies fractions. Readers may rely on every field of a major version; a minor
version adds fields, and readers pass over those that they do not know.
"""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from deploy.devices import DEVICE

SCHEMA_VERSION: Final = "1.1"
FILENAME: Final = "manifest.json"
MAX_BYTES: Final = 16 << 20
"""A hundred thousand class names fit; more is read by nobody."""

ENGINE: Final = "model.engine"
"""The engine that the model was timed with; its metadata lie beside it, in `model.engine.json`."""

DELIVERED: Final = (
    "model.onnx",
    "baseline.onnx",
    "report.json",
    "report.html",
    "plan.json",
    FILENAME,
    "run.py",
    "model.onnx.data",
    "baseline.onnx.data",
    ENGINE,
    f"{ENGINE}.json",
)
"""What may come out of a job: weights beside models that are too large for one file, an engine where one was timed."""

BATCH: Final = "batch"
"""What the free batch dimension is called in shapes."""

_MAX_FILENAME: Final = 200
_KNOWN_MAJOR: Final = SCHEMA_VERSION.partition(".")[0]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Size = Annotated[int, Field(ge=0)]


class ManifestError(Exception):
    """The caller's fault: the manifest is missing, damaged, or says something that no manifest may."""


def check_filename(name: str) -> str:
    """Returns a name that a file of the folder may have.

    Raises:
        ValueError: It has a folder in it, climbs, or holds what no file of ours does.
    """
    outside = name.startswith(("/", "\\", "~")) or ":" in name or ".." in name.replace("\\", "/").split("/")
    if outside:
        raise ValueError(f"{name[:_MAX_FILENAME]!r} leaves the folder; wanted the name of a file in it")
    plain = 0 < len(name) <= _MAX_FILENAME and name[0] not in ".-" and name.isprintable() and not set(name) & set("/\\")
    if not plain:
        raise ValueError(f"{name[:_MAX_FILENAME]!r} is no plain file name; wanted one like model.onnx")
    return name


Filename = Annotated[str, StringConstraints(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings")


class FileEntry(_Part):
    """A file of the folder; every one is listed but the manifest itself."""

    filename: Filename
    sha256: Sha256
    size_bytes: Size

    _plain = field_validator("filename")(check_filename)


class TensorEntry(_Part):
    """One named input or output of the model.

    Attributes:
        name: In the file.
        dtype: As numpy names it.
        shape: With the batch first; a free size is a word, `batch` for the batch.
        low: Smallest integer that it takes.
        high: What integers stay below, such as the size of a vocabulary.
    """

    name: Name
    dtype: Annotated[str, StringConstraints(pattern=r"^[a-z]+[0-9]*$", max_length=20)]
    shape: Annotated[tuple[Annotated[int, Field(ge=1)] | Name, ...], Field(max_length=16)]
    low: int = 0
    high: int = 2


class ImagePreprocessing(_Part):
    """How an image becomes an input: resize, crop the centre, scale, normalise; in that order.

    Attributes:
        input: Which input.
        color: What pixels are converted to; None where the channels are no colours and only arrays fit.
        size: Height and width of the input.
        resize: Height and width that the resized image has, or has at least where proportions are kept.
        keep_proportions: Whether one side is as stated, and the other in proportion and rounded down, never smaller.
        keep_exact: Whether an image that has the input's size already is not resized.
        crop: Where the input is cut out; offsets are halves rounded to even.
        interpolation: How pixels are resampled.
        antialias: Whether shrinking averages over all pixels that it leaves out.
        divisor: What pixels of 0 to 255 are divided by.
        mean: One value per channel, subtracted after the division.
        std: One value per channel, divided by afterwards.
        layout: Order of the dimensions.
    """

    kind: Literal["image", "noised_image"] = "image"
    input: Name
    color: Literal["RGB", "L"] | None
    size: tuple[int, int]
    resize: tuple[int, int]
    keep_proportions: bool
    keep_exact: bool
    crop: Literal["center"] = "center"
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    antialias: bool
    divisor: Annotated[float, Field(gt=0)] = 255.0
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    layout: Literal["NCHW"] = "NCHW"


class RawPreprocessing(_Part):
    """Samples were ready inputs: nothing is done to them."""

    kind: Literal["raw"] = "raw"


class TokenPreprocessing(_Part):
    """Texts become token ids.

    Attributes:
        tokenizer: Which one, with the start of its hash; None where ready inputs came.
        length: Tokens that texts are cut and padded to; None where inputs differ in shape.
        roles: What each input takes: `ids`, `mask` or `segments`.
    """

    kind: Literal["tokens"] = "tokens"
    tokenizer: Text | None
    length: int | None
    roles: dict[str, str]


Preprocessing = Annotated[ImagePreprocessing | RawPreprocessing | TokenPreprocessing, Field(discriminator="kind")]


class ModelEntry(_Part):
    """The model's file, and what it takes and returns.

    Attributes:
        sha256: Of the file, and of the weights after it where they lie beside it: what the report calls the model's.
        weights: Files that hold its weights, where they do not fit into it.
        class_output: The output with one number per class; None where there is none.
        labels: Names of the classes by index; None where nobody stated them.
    """

    filename: Filename
    sha256: Sha256
    weights: tuple[Filename, ...] = ()
    opset: int
    precision: Text
    inputs: Annotated[tuple[TensorEntry, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorEntry, ...], Field(min_length=1)]
    class_output: Name | None = None
    labels: Annotated[tuple[Text, ...], Field(max_length=1_000_000)] | None = None

    _plain = field_validator("filename")(check_filename)

    @field_validator("weights")
    @classmethod
    def _plain_weights(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_filename, value))


class EngineEntry(_Part):
    """An engine that was built of the model for one device; it is worth nothing on another.

    Attributes:
        filename: Its file.
        onnx_sha256: Of the model that it was built of.
        runtime: What runs it, with its version.
        metadata: What must be the same where it runs: versions, the GPU, the profile of shapes.
    """

    filename: Filename
    onnx_sha256: Sha256
    runtime: Text
    metadata: dict[str, Any] = Field(default_factory=dict)

    _plain = field_validator("filename")(check_filename)


class RuntimeEntry(_Part):
    """What ran the model when it was measured."""

    name: Name
    version: Text
    threads: Annotated[int, Field(ge=1, le=4096)]


class DeviceEntry(_Part):
    """Where it was measured.

    Attributes:
        name: As jobs name devices, such as `local/cuda:0`.
        description: What it is, in words.
    """

    name: Text
    description: Text

    @property
    def local_name(self) -> str:
        """Returns what its own machine calls it: `cuda:N`, or `cpu` where the name has no device in it."""
        last = self.name.rpartition("/")[2]
        return last if re.fullmatch(DEVICE, last) else "cpu"


class BudgetEntry(_Part):
    """What was asked for."""

    asked: Text
    milliseconds: float
    percentile: float
    batch: Annotated[int, Field(ge=1)]


class FigureEntry(_Part):
    """The task's figure of original and result on the validation samples; the report has the intervals."""

    name: Text
    unit: Text
    higher_is_better: bool
    baseline: float | None
    result: float | None
    count: int | None


class LatencyEntry(_Part):
    """Latencies in short; the report has the rest."""

    baseline_ms: dict[str, float]
    result_ms: dict[str, float]
    speedup: float
    speedup_interval: tuple[float, float]


class LicenceEntry(_Part):
    """The licence that the source states for itself; nobody checked it."""

    name: Text
    stated_in: Text


class SourceEntry(_Part):
    """The model that came in."""

    kind: Literal["pt2", "onnx", "folder", "named"]
    name: Text
    sha256: Sha256 | None
    licence: LicenceEntry | None = None


class Manifest(_Part):
    """Everything that one must know to run the model, and to know which files belong to it."""

    schema_version: Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+$")] = SCHEMA_VERSION
    shoal_version: Text
    job: Text
    created: Text
    files: Annotated[tuple[FileEntry, ...], Field(min_length=1, max_length=1000)]
    model: ModelEntry
    engines: tuple[EngineEntry, ...] = ()
    engine_missing: Text | None = None
    """Why there is no engine, of a job that was timed with one; since 1.1."""

    preprocessing: Preprocessing | None
    task: Text
    outcome: Literal["BUDGET_MET", "BUDGET_NOT_MET", "NO_IMPROVEMENT"]
    budget: BudgetEntry
    runtime: RuntimeEntry
    device: DeviceEntry
    latency: LatencyEntry
    figure: FigureEntry | None
    source: SourceEntry
    strategy: Text
    seed: int
    versions: dict[str, str]

    @model_validator(mode="after")
    def _every_file_once(self) -> Manifest:
        names = [entry.filename for entry in self.files]
        if len(set(names)) != len(names):
            raise ValueError("files lists a name twice")
        used = {self.model.filename, *self.model.weights, *(engine.filename for engine in self.engines)}
        if missing := used - set(names):
            raise ValueError(f"files does not list {', '.join(sorted(missing))}, which the manifest speaks of")
        return self

    @property
    def digests(self) -> dict[str, FileEntry]:
        """Returns the files by name."""
        return {entry.filename: entry for entry in self.files}


def read_manifest(folder: Path) -> Manifest:
    """Returns the manifest of a folder that anybody may have made.

    Raises:
        ManifestError: There is none, or it is damaged, too large, of another major version, or names files elsewhere.
    """
    content = read_plain(folder / FILENAME, MAX_BYTES)
    _check_version(content)
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as exc:
        raise ManifestError(f"{FILENAME} is no manifest of version {SCHEMA_VERSION}: {first_fault(exc)}") from exc


def read_plain(path: Path, most: int) -> bytes:
    """Returns the bytes of a plain file, never of what a link points to.

    Raises:
        ManifestError: There is none, it is a link, a folder or a device, or has more than `most` bytes.
    """
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            what = "a link" if stat.S_ISLNK(found.st_mode) else "no file"
            raise ManifestError(f"{path.name} is {what}; wanted a plain file")
        if found.st_size > most:
            raise ManifestError(f"{path.name} has {found.st_size} bytes; at most {most} are read")
        with path.open("rb") as stream:
            return stream.read(most)
    except FileNotFoundError as exc:
        raise ManifestError(f"there is no {path.name} in {path.parent}; give a folder that a job delivered") from exc
    except OSError as exc:
        raise ManifestError(f"{path.name} cannot be read: {exc.strerror}") from exc


def first_fault(error: ValidationError) -> str:
    """Returns where the first fault is, and what it is."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}".removeprefix(": ").replace("Value error, ", "")


def _check_version(content: bytes) -> None:
    """Tells a manifest of a later major version from one that is damaged."""
    try:
        stated = json.loads(content).get("schema_version", "")
    except (ValueError, RecursionError, AttributeError) as exc:
        raise ManifestError(f"{FILENAME} is no JSON object: {str(exc)[:200]}") from exc
    if isinstance(stated, str) and stated.partition(".")[0] != _KNOWN_MAJOR:
        raise ManifestError(
            f"{FILENAME} has schema version {stated[:20]!r}; this program reads {_KNOWN_MAJOR}.x: update it"
        )
