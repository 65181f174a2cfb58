"""What a model, a manifest or a command line may say about how a network is to be optimised; all of it optional."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationInfo,
    model_validator,
)

from service.cli import parse


def _text(read: Callable[[str], Any], example: str) -> BeforeValidator:
    """Returns a validator that reads text as the command line does, and passes on what was read already."""

    def validate(value: Any) -> Any:
        if isinstance(value, (bool, int, float)):
            raise ValueError(f"{value!r} is a bare value; write it as text, like {example!r}")  # noqa: TRY004
        return read(value) if isinstance(value, str) else value

    return BeforeValidator(validate)


def _numbers(read: Callable[[str], Any]) -> BeforeValidator:
    """Returns a validator of lists that may also be written as the command line has them."""
    return BeforeValidator(lambda value: read(value) if isinstance(value, str) else value)


def _words(value: Any) -> Any:
    return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value


def _shapes(value: Any) -> Any:
    """Reads `{name: [sizes]}` or `NAME=SIZES;NAME=SIZES` as pairs."""
    if isinstance(value, str):
        return tuple(parse.input_shape(part) for part in value.split(";"))
    if isinstance(value, dict):
        return tuple((name, _numbers_of(sizes)) for name, sizes in value.items())
    return value


def _numbers_of(sizes: Any) -> tuple[int, ...]:
    return parse.sample_shape(sizes if isinstance(sizes, str) else ",".join(map(str, sizes)))


def _options(value: Any) -> Any:
    """Reads an object or, from a tag, the JSON of one as pairs."""
    if isinstance(value, str):
        value = parse.option(f"options={value}")[1]
    if isinstance(value, dict):
        return tuple(sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return value
    raise ValueError(f"{value!r} is no object; write the options by name, like {{kernels: [1, 3]}}")


def _place(value: Any, info: ValidationInfo) -> Any:
    """Resolves a relative path against the folder of the file that names it."""
    folder = (info.context or {}).get("folder")
    if isinstance(value, str) and value and folder is not None:
        return str(Path(folder) / Path(value).expanduser())
    return value


Place = Annotated[str, Field(min_length=1), BeforeValidator(_place)]
Budget = Annotated[InstanceOf[parse.BudgetLimit], _text(parse.budget, "0.6x")]
Duration = Annotated[InstanceOf[timedelta], _text(parse.duration, "30m")]
Share = Annotated[float, BeforeValidator(lambda value: parse.fraction(str(value)))]
Percentile = Annotated[float, BeforeValidator(lambda value: parse.percentile(str(value)))]
Numbers = Annotated[tuple[float, ...], _numbers(parse.numbers)]
Shape = Annotated[tuple[int, ...], _numbers(parse.sample_shape)]
Shapes = Annotated[tuple[tuple[str, tuple[int, ...]], ...], BeforeValidator(_shapes)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Options = Annotated[tuple[tuple[str, Any], ...], BeforeValidator(_options)]


class ModelSettings(BaseModel):
    """Names and values as on the command line of `shoal optimize`; what is not given is left to whoever comes next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: Budget | None = Field(default=None, description="`0.6x` of the original's latency, or a time like `12ms`")
    target: str | None = Field(
        default=None, validation_alias=AliasChoices("target", "device"), description="Device to be fast on"
    )
    runtime: str | None = None
    precision: Literal["fp32", "fp16", "bf16", "int8", "auto"] | None = None
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    batch: Annotated[int, Field(ge=1, le=4096)] | None = None
    percentile: Percentile | None = None
    data: Place | None = Field(default=None, description="Folder or archive with the splits")
    strategy: str | None = None
    options: Options | None = Field(default=None, description="Of the strategy, by name")
    epochs: Annotated[int, Field(ge=0, le=1000)] | None = None
    patience: Annotated[int, Field(ge=0, le=1000)] | None = None
    no_finetune: bool | None = None
    time_limit: Duration | None = Field(default=None, description="Like `30m`")
    accuracy_floor: Share | None = None
    quality_floor: float | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    task: str | None = None
    weights: Place | None = Field(default=None, description="Of a named architecture")
    num_classes: Annotated[int, Field(ge=1)] | None = None
    pretrained: bool | None = None
    sample_shape: Shape | None = None
    input_shapes: Shapes | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    preprocess: Place | None = Field(default=None, description="JSON file with the fields of Preprocessing")
    text_columns: Words | None = None
    label_column: str | None = None
    image_column: str | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.no_finetune and self.epochs:
            raise ValueError(f"no_finetune and epochs {self.epochs} exclude each other; give one of them")
        if self.accuracy_floor is not None and self.quality_floor is not None:
            raise ValueError("accuracy_floor and quality_floor bound the same figure; give one of them")
        return self

    def over(self, others: ModelSettings) -> ModelSettings:
        """Returns these settings, completed by `others` where they say nothing."""
        return ModelSettings.model_construct(**{**others.given(), **self.given()})

    def given(self) -> dict[str, Any]:
        """Returns what was said, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


NAMES = frozenset({*ModelSettings.model_fields, "device"})
"""Every name that a setting goes by."""


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong in settings.

    Attributes:
        where: Path of the field, e.g. `("models", 2, "budget")`.
        message: What is wrong with it.
    """

    where: tuple[str | int, ...]
    message: str


def mistakes(exc: Any) -> list[Mistake]:
    """Returns what a pydantic ValidationError says, in our words."""
    return [Mistake(tuple(each["loc"]), _message(each)) for each in exc.errors(include_url=False)]


def _message(error: dict[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return f"there is no such field; known are {', '.join(sorted(NAMES))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message if error["type"] in {"value_error", "missing"} else f"{message}; got {error['input']!r:.80}"
