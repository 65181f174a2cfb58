"""Writes a torch module as ONNX: dynamic batch, simplified, checked, the same bytes for the same module."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import onnx
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from deploy.artifact import DATA_SUFFIX, Artifact, hash_model
from deploy.cleaning import clean, serialise
from deploy.errors import ExportError
from deploy.padding import keep_padding
from deploy.precision.model import stored_precision
from deploy.simplify import simplify
from deploy.tensors import TensorInfo

BATCH = "batch"
"""Name of the free first dimension."""

# protobuf cannot hold more than 2 GiB in one message; the margin is for everything that is not a weight.
_PROTOBUF_LIMIT = 2**31 - 2**26
_TRACED_BATCH = 2
_OPERATOR = re.compile(r"OpOverload\(op='([\w.]+)'|\b((?:aten|prims|torchvision|quantized)[.:]{1,2}\w+(?:\.\w+)?)")


class InputSpec(Protocol):
    """Describes one input of a module, per sample."""

    @property
    def name(self) -> str:
        """The ONNX name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample, without the batch dimension."""

    @property
    def dtype(self) -> torch.dtype:
        """Element type."""

    @property
    def low(self) -> int:
        """Smallest random value of an integer tensor."""

    @property
    def high(self) -> int:
        """What random values of an integer tensor stay below."""


def describe_input(spec: InputSpec) -> TensorInfo:
    """Returns the same without torch."""
    dtype = str(spec.dtype).removeprefix("torch.")
    return TensorInfo(spec.name, tuple(spec.shape), dtype, spec.low, spec.high)


@dataclass(frozen=True)
class ExportSettings:
    """How a module is written.

    Attributes:
        dynamic_batch: Whether any batch size is accepted; otherwise `traced_batch` is fixed.
        traced_batch: Batch size that the module is traced with, at least 2 where the batch is dynamic: a dimension of 1
            may be taken for a constant.
        external_data_above_bytes: Weights beyond this size go into a file beside the model file, unsimplified.
    """

    dynamic_batch: bool = True
    traced_batch: int = _TRACED_BATCH
    external_data_above_bytes: int = _PROTOBUF_LIMIT


def export_onnx(
    module: nn.Module,
    inputs: Sequence[InputSpec],
    output_names: Sequence[str],
    path: Path,
    settings: ExportSettings | None = None,
) -> Artifact:
    """Writes `module` to `path` as ONNX and returns what was written.

    The file holds no trace of this machine, and the same module gives the same bytes. It passes `onnx.checker` in full.

    Args:
        module: In eval mode. Takes the inputs in order, batch first, and returns a tensor or a tuple of tensors.
        inputs: What it takes.
        output_names: One name per tensor that it returns.
        path: Where to write; replaced if it exists.
        settings: How to write.

    Raises:
        ExportError: If the module is in training mode, cannot be traced with a free batch size, or holds an operator
            that ONNX cannot express; the message names it.
    """
    settings = settings or ExportSettings()
    _check(module, inputs, output_names)
    program = _translate(_trace(module, inputs, settings), inputs, output_names)
    _free_names(program)
    if settings.dynamic_batch:
        _name_batch(program)
    path.parent.mkdir(parents=True, exist_ok=True)
    if _weight_bytes(module) > settings.external_data_above_bytes:
        notes = _write_beside(program, path)
    else:
        notes = _write_single(program, path)
    return describe_artifact(path, inputs, notes)


def describe_artifact(path: Path, inputs: Sequence[InputSpec], notes: tuple[str, ...] = ()) -> Artifact:
    """Returns what is known about an ONNX file.

    Raises:
        ModelFileError: If it cannot be read.
    """
    sha256, size = hash_model(path)
    model = onnx.load(path, load_external_data=False)
    return Artifact(
        path=path,
        sha256=sha256,
        size_bytes=size,
        opset=next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}),
        precision=stored_precision(model),
        inputs=tuple(map(describe_input, inputs)),
        outputs=tuple(_describe(value) for value in model.graph.output),
        producers={name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxsim")},
        notes=notes,
    )


def _check(module: nn.Module, inputs: Sequence[InputSpec], output_names: Sequence[str]) -> None:
    names = [*(spec.name for spec in inputs), *output_names]
    if len(set(names)) != len(names) or not output_names or not inputs:
        msg = f"inputs and output names must be there and all differ, got {names}"
        raise ExportError(msg)
    for name, part in module.named_modules():
        if part.training and isinstance(part, (_NormBase, _DropoutNd)):
            msg = f"'{name}' ({type(part).__name__}) is in training mode; call eval() before the export"
            raise ExportError(msg, type(part).__name__)


def _trace(module: nn.Module, inputs: Sequence[InputSpec], settings: ExportSettings) -> torch.export.ExportedProgram:
    arguments = tuple(_example(spec, settings.traced_batch) for spec in inputs)
    batch = torch.export.Dim(BATCH, min=1)
    shapes = tuple({0: batch} for _ in inputs) if settings.dynamic_batch else None
    try:
        with _quietly(), torch.no_grad():
            return torch.export.export(module, arguments, dynamic_shapes=shapes)
    except Exception as exc:
        operator = _operator(exc)
        msg = f"the model cannot be traced with a free batch size{_at(operator)}: {_summary(exc)}"
        raise ExportError(msg, operator) from exc


def _translate(
    program: torch.export.ExportedProgram, inputs: Sequence[InputSpec], output_names: Sequence[str]
) -> torch.onnx.ONNXProgram:
    names = [spec.name for spec in inputs]
    _read_operators_once()
    try:
        with _quietly(), torch.no_grad():
            translated = torch.onnx.export(
                program, dynamo=True, input_names=names, output_names=list(output_names), verbose=False
            )
    except Exception as exc:
        operator = _operator(exc)
        msg = f"the model cannot be written as ONNX{_at(operator)}: {_summary(exc)}"
        raise ExportError(msg, operator) from exc
    assert translated is not None
    found = [value.name for value in translated.model.graph.outputs]
    if found != list(output_names):
        msg = f"the model returns {len(found)} tensors, but {len(output_names)} output names were given"
        raise ExportError(msg)
    return translated


@cache
def _read_operators_once() -> None:
    """Makes the exporter parse the sources of its own operators once instead of for every model.

    They are 497 functions that never change, and reading them is half of what exporting a ResNet-20 takes. An
    onnxscript that goes about it otherwise is left as it is.
    """
    with suppress(ImportError):
        from onnxscript._internal.values import TracedOnnxFunction

        signature = vars(TracedOnnxFunction).get("function_ir")
        if isinstance(signature, property) and signature.fget is not None:
            TracedOnnxFunction.function_ir = property(cache(signature.fget))  # type: ignore[method-assign, assignment]


def _free_names(program: torch.onnx.ONNXProgram) -> None:
    """Renames inner values that have the name of an input or output, as a weight called like the input does."""
    graph = program.model.graph
    edges = [*graph.inputs, *graph.outputs]
    taken = {value.name for value in edges}
    inner = [*graph.initializers.values(), *(value for node in graph for value in node.outputs)]
    for value in inner:
        if value.name in taken and not any(value is edge for edge in edges):
            value.name = f"{value.name}.inner"


def _name_batch(program: torch.onnx.ONNXProgram) -> None:
    """Gives the free dimension its name in place of the tracer's symbol, and checks that every output has it."""
    graph = program.model.graph
    symbols = {BATCH, *(str(value.shape[0]) for value in graph.inputs if value.shape is not None)}
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is None or len(value.shape) == 0 or str(value.shape[0]) not in symbols:
            msg = f"output '{value.name}' has the shape {value.shape}; its first dimension must be the batch"
            raise ExportError(msg)
        value.shape[0] = BATCH


def _write_single(program: torch.onnx.ONNXProgram, path: Path) -> tuple[str, ...]:
    model, notes = simplify(keep_padding(clean(program.model_proto)))
    _check_file(model)
    _replace(path, serialise(model))
    path.with_name(path.name + DATA_SUFFIX).unlink(missing_ok=True)
    return notes


def _write_beside(program: torch.onnx.ONNXProgram, path: Path) -> tuple[str, ...]:
    program.save(path, external_data=True)
    _replace(path, serialise(keep_padding(clean(onnx.load(path, load_external_data=False)))))
    _check_file(path)
    return ("not simplified: the weights are too large for one file and lie beside it",)


def _check_file(model: onnx.ModelProto | Path) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as exc:
        msg = f"the exporter wrote an invalid file: {_summary(exc)}"
        raise ExportError(msg) from exc


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _example(spec: InputSpec, batch: int) -> torch.Tensor:
    size = (batch, *spec.shape)
    return torch.zeros(size, dtype=spec.dtype)


def _weight_bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _describe(value: onnx.ValueInfoProto) -> TensorInfo:
    kind = value.type.tensor_type
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
    return TensorInfo(value.name, tuple(sizes[1:]), str(dtype))


def _operator(exc: BaseException) -> str | None:
    """Returns the operator that an exporter's message blames, from the innermost cause outwards."""
    causes = [exc]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    for cause in reversed(causes):
        found = _OPERATOR.search(str(cause))
        if found:
            return found.group(1) or found.group(2)
    return None


def _at(operator: str | None) -> str:
    return f" at operator {operator}" if operator else ""


def _summary(exc: BaseException) -> str:
    innermost = exc
    while (cause := innermost.__cause__) is not None:
        innermost = cause
    lines = [line.strip() for line in str(innermost).splitlines() if line.strip()]
    return lines[0] if lines else type(innermost).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences what the exporter says about itself; its errors still come through as exceptions.

    Standard error is part of it: torch.export prints the whole traced graph there before it raises.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
