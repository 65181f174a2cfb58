"""Writes downloaded files as a model repository of Triton, where a command is asked to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from service.cli.errors import InputError
from service.cli.options import whole

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

_HELP: Final = "Also write the model into this Triton model repository: NAME/config.pbtxt, NAME/1/model.onnx."
_DELAY_HELP: Final = "Let Triton wait so many microseconds to put requests into one batch. Default: no batching."


@dataclass(frozen=True)
class TritonFlags:
    """Whether and how a Triton model repository is written.

    Attributes:
        triton: The repository; None for none.
        triton_name: The model's name in it; None for that of the source.
        triton_batching: Microseconds that Triton may wait to fill a batch; None for no batching.
    """

    triton: str | None = None
    triton_name: str | None = None
    triton_batching: int | None = None


def triton_options(command: F) -> F:
    """Adds `--triton` and what belongs to it."""
    for decorate in (
        click.option("--triton-batching", type=whole(0, 10_000_000), metavar="US", help=_DELAY_HELP),
        click.option("--triton-name", metavar="NAME", help="Name of the model in it. Default: that of the source."),
        click.option("--triton", type=click.Path(file_okay=False), metavar="DIR", help=_HELP),
    ):
        command = decorate(command)
    return command


def check_triton(flags: TritonFlags) -> None:
    """Raises InputError where the flags do not go together."""
    import re

    if flags.triton is None and (flags.triton_name is not None or flags.triton_batching is not None):
        raise InputError("--triton-name and --triton-batching belong to --triton DIR; give that too")
    if flags.triton_name is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", flags.triton_name):
        raise InputError(f"--triton-name {flags.triton_name!r} is no name of a model; use letters, digits, _, . and -")


def write_triton(flags: TritonFlags, paths: dict[str, str]) -> Path | None:
    """Writes the repository from downloaded files; returns the model's folder in it, None where none was asked for.

    Raises:
        InputError: The job delivered no manifest, or its model is none for Triton.
    """
    if flags.triton is None:
        return None
    from service.delivery.manifest import ManifestError
    from service.delivery.triton import TritonSettings, write_repository

    settings = TritonSettings(name=flags.triton_name, delay_microseconds=flags.triton_batching)
    try:
        return write_repository(Path(paths["model.onnx"]).parent, Path(flags.triton), settings)
    except ManifestError as exc:
        raise InputError(f"--triton: {exc}") from exc
