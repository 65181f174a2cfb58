"""Options that several commands share, and click types over the pure parsers."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from service.cli import parse
from service.cli.security import security_options

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")
T = TypeVar("T")

SERVER_HELP: Final = (
    "Server to use, HOST:PORT. Default: one that this command starts on this machine and that stops by itself "
    "when its last job is finished."
)
_TASK_HELP: Final = (
    "What the outputs mean: classification, multi_label, denoising or none (compare with the original only). Default: "
    "told by the model and the labels. For transformers names, also a head, like text-classification or masked-lm."
)
_PREPROCESS_HELP: Final = "JSON file with mean, std, resize, crop_fraction, interpolation, raw."
_TEXT_HELP: Final = (
    "Column or JSON key of the texts; twice for pairs that the model reads together. Default: text, sentence, ..."
)
PRECISIONS: Final = ("fp32", "fp16", "bf16", "int8", "auto")


class Parsed(click.ParamType[Any]):
    """A parameter read by one of the functions of `service.cli.parse`."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the value; a ValueError becomes a usage error."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as exc:
            return self.fail(str(exc), param, ctx)


def whole(low: int, high: int) -> Parsed:
    """Returns the type of a whole number in [low, high]."""
    return Parsed("N", partial(parse.whole, low=low, high=high))


BUDGET: Final = Parsed("0.6x|12ms", parse.budget)
DURATION: Final = Parsed("DURATION", parse.duration)
SHAPE: Final = Parsed("C,H,W", parse.sample_shape)
INPUT_SHAPE: Final = Parsed("NAME=C,H,W", parse.input_shape)
NUMBERS: Final = Parsed("A,B,C", parse.numbers)
FRACTION: Final = Parsed("FRACTION", parse.fraction)
PERCENTILE: Final = Parsed("PERCENTILE", parse.percentile)
OPTION: Final = Parsed("KEY=VALUE", parse.option)


def pick(kind: Callable[..., T], flags: dict[str, Any]) -> T:
    """Returns the dataclass `kind`, its fields taken from the flags of the same names, where there are some."""
    return kind(**{name: flags[name] for name in inspect.signature(kind).parameters if name in flags})


def server_option(command: F) -> F:
    """Adds `--server` and `--state-dir`, and what says how to speak with the server."""
    command = security_options(command)
    command = click.option(
        "--state-dir",
        type=click.Path(file_okay=False),
        envvar="SHOAL_STATE_DIR",
        help="State folder of the server of this machine. Default: in the user's data folder.",
    )(command)
    return click.option("--server", metavar="HOST:PORT", envvar="SHOAL_SERVER", help=SERVER_HELP)(command)


def json_option(command: F) -> F:
    """Adds `--json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON on standard output, all else on standard error."
    )(command)


def model_options(command: F) -> F:
    """Adds the MODEL argument and what belongs to it."""
    for decorate in (
        click.option("--sample-shape", type=SHAPE, help="Shape of one sample without the batch, like 3,224,224."),
        click.option(
            "--input-shape",
            type=INPUT_SHAPE,
            multiple=True,
            help="The same for one input of several, by name, like input_ids=128; may be given more than once.",
        ),
        click.option("--task", help=_TASK_HELP),
        click.option("--pretrained", is_flag=True, help="Let the server download the published weights of a name."),
        click.option("--num-classes", type=whole(1, 1_000_000), help="Classes of a named architecture."),
        click.option(
            "--weights", type=click.Path(), help="Weights of a named architecture: safetensors or a state dictionary."
        ),
        click.argument("model"),
    ):
        command = decorate(command)
    return command


def job_options(command: F) -> F:
    """Adds what else a job can be told, but for its budget and its data."""
    for decorate in (
        click.option("--seed", type=whole(0, 2**63 - 1), help="Seeds everything random. Default 0."),
        click.option(
            "--quality-floor", type=float, help="Worst value to accept of the task's own figure, in its unit."
        ),
        click.option("--accuracy-floor", type=FRACTION, help="Lowest accuracy to accept, like 0.91 or 91%."),
        click.option("--time-limit", type=DURATION, help="Longest run time of a job, like 30m. Default 1h."),
        click.option("--no-finetune", is_flag=True, help="Do not train at all."),
        click.option("--patience", type=whole(0, 1000), help="Stop training after so many looks without a better one."),
        click.option("--epochs", type=whole(0, 1000), help="At most so many passes over the training data. Default 2."),
        click.option("--option", type=OPTION, multiple=True, help="Option of the strategy, JSON value; repeatable."),
        click.option("--strategy", metavar="NAME", help="See `shoal strategies`. Default layerfit."),
    ):
        command = decorate(command)
    return command


def preprocessing_options(command: F) -> F:
    """Adds what says how samples become model inputs."""
    for decorate in (
        click.option("--image-column", metavar="NAME", help="Column of the images. Default: image, img or images."),
        click.option("--label-column", metavar="NAME", help="Column or JSON key of the labels. Default: label, ..."),
        click.option("--text-column", metavar="NAME", multiple=True, help=_TEXT_HELP),
        click.option("--preprocess", type=click.Path(), metavar="FILE", help=_PREPROCESS_HELP),
        click.option("--std", type=NUMBERS, help="Per channel, after scaling to [0, 1]."),
        click.option("--mean", type=NUMBERS, help="Per channel, after scaling to [0, 1]."),
    ):
        command = decorate(command)
    return command


def target_options(command: F) -> F:
    """Adds what says where the network will run, and at which batch and percentile it is timed."""
    for decorate in (
        click.option("--percentile", type=PERCENTILE, help="Which percentile of the latency counts. Default 50."),
        click.option("--batch", type=whole(1, 4096), help="Samples per inference. Default 1."),
        click.option("--threads", type=whole(1, 256), help="Threads per inference. Default 1."),
        click.option("--precision", type=click.Choice(PRECISIONS), help="Number format. Default fp32."),
        click.option("--runtime", help="onnxruntime (default), openvino, onnxruntime-tensorrt or tensorrt."),
        click.option("--target", metavar="local/cpu|local/cuda:N", help="Device to be fast on. Default local/cpu."),
    ):
        command = decorate(command)
    return command


def log_format_option(command: F) -> F:
    """Adds `--log-format`."""
    return click.option(
        "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
        envvar="SHOAL_LOG_FORMAT", help="Of the log on standard error: for people, or one JSON object a line.",
    )(command)  # fmt: skip
