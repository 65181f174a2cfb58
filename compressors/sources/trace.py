"""From a module that we built to an exported program, and what is known about its edges."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode

from compressors.errors import UnsupportedModelError
from compressors.graph import TensorSpec


@dataclass(frozen=True)
class Traced:
    """What a reader hands to the lift.

    Attributes:
        program: The model.
        ranges: Values that integer inputs may take, by input name: smallest, and what they stay below.
        output_names: One name per output, where the program does not say itself.
    """

    program: ExportedProgram
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    output_names: tuple[str, ...] | None = None


def trace(model: nn.Module, inputs: Sequence[TensorSpec], name: str) -> Traced:
    """Returns the model as a program with a free batch size.

    Args:
        model: In eval mode.
        inputs: What it is called with, by the names of its own arguments.
        name: What the user calls it.

    Raises:
        UnsupportedModelError: It cannot be traced for these inputs.
    """
    samples = {spec.name: spec.random(2, index) for index, spec in enumerate(inputs)}
    free = {spec.name: {0: Dim.AUTO} for spec in inputs}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's code runs; its advice is not for our user
            program = torch.export.export(model, (), samples, dynamic_shapes=free)
    except Exception as exc:  # the tracer runs the architecture's code, which may raise anything
        reason = next((line for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
        shapes = ", ".join(str(spec.shape) for spec in inputs)
        raise UnsupportedModelError(f"{name} cannot be traced for samples of shape {shapes}: {reason[:200]}") from exc
    return Traced(program, {spec.name: (spec.low, spec.high) for spec in inputs if not spec.dtype.is_floating_point})


@contextmanager
def uninitialised() -> Iterator[None]:
    """Builds modules without drawing their parameters, which are about to be replaced; buffers are computed as always.

    The memory of such parameters is reserved but never touched, so that it costs nothing.
    """
    with _Untouched(), torch.no_grad():
        yield


@final
class _Untouched(TorchFunctionMode):
    """Skips what writes into parameters."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        target = args[0] if args else (kwargs or {}).get("tensor")
        name = getattr(func, "__name__", "")
        if isinstance(target, nn.Parameter) and name.endswith("_") and not name.endswith(("__", "requires_grad_")):
            return target
        return func(*args, **(kwargs or {}))


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Draws the same random weights every time, and leaves the caller's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
