"""From an ONNX model to an `ExportedProgram`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from compressors.errors import EngineError, ModelError, OptionError, UnsupportedModelError, reason
from compressors.sources.onnx.limits import RESULT_ELEMENTS
from compressors.sources.onnx.model import Input, OnnxModel
from compressors.sources.onnx.network import Network
from compressors.sources.source import ModelSource

_TRACED_BATCH = 2
"""Not one, which torch takes for a constant."""

_RESERVED = re.compile(r"^(self|mod|args|kwargs|inputs|output)$")
"""Names that Python or torch use for something else in a call."""


def trace(model: OnnxModel, source: ModelSource) -> ExportedProgram:
    """Returns the model as a program, its batch size free where the file leaves it free.

    Raises:
        ModelError: Sizes are needed and missing, contradict the file, or operators do not fit.
        UnsupportedModelError: An operator cannot be computed exactly, or an input has no batch dimension.
    """
    shapes = [sample_shape(item, model, source) for item in model.inputs]
    network = Network(model)
    batch = fixed_batch(model)
    if batch is not None:
        return _export(network, model, shapes, batch, free=False)
    try:
        return _export(network, model, shapes, _TRACED_BATCH, free=True)
    except ModelError:
        # Some files call their batch free and hold tables for one sample all the same; lifting may free those.
        try:
            return _export(network, model, shapes, 1, free=False)
        except ModelError:
            pass
        raise


def input_names(model: OnnxModel) -> tuple[str, ...]:
    """Returns the inputs' names as Python identifiers, each once."""
    return identifiers([item.name for item in model.inputs])


def identifiers(originals: Sequence[str]) -> tuple[str, ...]:
    """Returns names as Python identifiers, each once; what is one already stays as it is."""
    names: list[str] = []
    for original in originals:
        name = base = _RESERVED.sub(r"\1_", re.sub(r"^(?=\d)", "input_", re.sub(r"\W", "_", original, flags=re.ASCII)))
        count = 0
        while name in names:
            count += 1
            name = f"{base}_{count}"
        names.append(name[:100])
    return tuple(names)


def fixed_batch(model: OnnxModel) -> int | None:
    """Returns the batch size that the file states, None where it leaves it open."""
    sizes = [item.sizes[0] for item in model.inputs if item.sizes]
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


def sample_shape(item: Input, model: OnnxModel, source: ModelSource) -> tuple[int, ...]:
    """Returns the shape of one sample of an input: the file's, completed by what the user says.

    Raises:
        OptionError: The user names an input that there is not.
        ModelError: A size is missing, or contradicts the file.
    """
    given = _given(item, model, source)
    where = f"{model.where}: the input {item.name!r}"
    if item.sizes is None:
        if given is None:
            raise ModelError(f"{where} states no shape; give one with sample_shape or input_shapes (without the batch)")
        return given
    if not item.sizes:
        raise UnsupportedModelError(f"{where} has no batch dimension")
    stated = tuple(size if isinstance(size, int) and size > 0 else None for size in item.sizes[1:])
    if given is None:
        if None in stated:
            shown = ", ".join(str(size or "?") for size in item.sizes)
            raise ModelError(
                f"{where} has the shape ({shown}), open in more than the batch; give its sample shape (without the "
                "batch) with sample_shape or input_shapes"
            )
        return tuple(size for size in stated if size is not None)
    fits = len(given) == len(stated) and all(size in {None, got} for size, got in zip(stated, given, strict=True))
    if not fits:
        wanted = ", ".join(str(size or "any") for size in stated)
        raise ModelError(f"{where} has the sample shape ({wanted}), got {given}")
    return given


def _given(item: Input, model: OnnxModel, source: ModelSource) -> tuple[int, ...] | None:
    names = [other.name for other in model.inputs]
    odd = [name for name in source.input_shapes if name not in names]
    if odd:
        raise OptionError("source.input_shapes", f"there is no input {odd[0]!r}; the model takes {', '.join(names)}")
    if item.name in source.input_shapes:
        return tuple(source.input_shapes[item.name])
    if source.sample_shape and len(names) > 1:
        raise OptionError(
            "source.sample_shape", f"the model takes {len(names)} inputs ({', '.join(names)}); give a shape by name"
        )
    return tuple(source.sample_shape) if source.sample_shape else None


def _export(
    network: Network, model: OnnxModel, shapes: list[tuple[int, ...]], batch: int, *, free: bool
) -> ExportedProgram:
    for item, shape in zip(model.inputs, shapes, strict=True):
        if batch * math.prod(shape) > RESULT_ELEMENTS:
            raise ModelError(
                f"{model.where}: the input {item.name!r} of shape {(batch, *shape)} has more than "
                f"{RESULT_ELEMENTS} elements"
            )
    named = zip(input_names(model), model.inputs, shapes, strict=True)
    samples = {name: torch.zeros(batch, *shape, dtype=item.dtype) for name, item, shape in named}
    sizes: Any = {"inputs": {name: {0: Dim.AUTO} for name in samples}} if free else None
    try:
        return torch.export.export(network, (), samples, dynamic_shapes=sizes)
    except OptionError:
        raise
    except EngineError as exc:
        raise type(exc)(f"{model.where}: {exc}") from exc
    except Exception as exc:  # the tracer raises whatever it stumbles over
        raise UnsupportedModelError(f"{model.where} cannot be traced: {reason(exc)}") from exc
