"""What goes in and what comes out: specs of a lifted graph's edges, and the proof that it computes what it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from compressors.errors import ModelError, SurgeryError, UnsupportedModelError
from compressors.graph import Graph, TensorSpec
from compressors.shapes import PROBE, output_nodes, propagate

_TOLERANCE = 1e-5
"""Relative. The graph runs the same kernels on the same numbers; only fused paths may round differently in float32."""


def input_specs(program: ExportedProgram, given: Sequence[tuple[int, ...]] | None) -> tuple[TensorSpec, ...]:
    """Returns one spec per tensor input.

    Raises:
        ModelError: The given sample shapes do not fit, or are needed and missing.
    """
    names = [spec.arg.name for spec in program.graph_signature.input_specs if _is_data(spec)]
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    if given is not None and len(given) != len(names):
        raise ModelError(f"the model takes {len(names)} inputs ({', '.join(names)}), got {len(given)} sample shapes")
    specs = []
    for index, name in enumerate(names):
        value = nodes[name].meta["val"]
        if not value.dim():
            raise UnsupportedModelError(f"input {name!r} has no batch dimension")
        shape = _sample_shape(name, tuple(value.shape[1:]), None if given is None else tuple(given[index]))
        specs.append(TensorSpec(name, shape, value.dtype))
    return tuple(specs)


def _sample_shape(name: str, traced: tuple[Any, ...], given: tuple[int, ...] | None) -> tuple[int, ...]:
    """Returns the shape of one sample; the program may leave sizes open, the user may not contradict it."""
    if given is None:
        if any(not isinstance(size, int) for size in traced):
            raise ModelError(f"the model leaves the size of input {name!r} open; state the sample shape")
        return traced
    fits = len(given) == len(traced) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(traced, given, strict=True)
    )
    if not fits:
        sizes = tuple(size if isinstance(size, int) else "any" for size in traced)
        raise ModelError(f"the model's input {name!r} has sample shape {sizes}, got {given}")
    return given


def _is_data(spec: InputSpec) -> bool:
    return spec.kind is InputKind.USER_INPUT and isinstance(spec.arg, TensorArgument)


def output_specs(module: fx.GraphModule, inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Returns one spec per output, after a dry run with a batch size that the program was not exported for.

    Raises:
        UnsupportedModelError: The graph does not run at that size, or an output's first dimension is not the batch.
    """
    try:
        shapes = propagate(module, inputs)
    except (RuntimeError, ValueError, TypeError) as exc:
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise UnsupportedModelError(
            f"the model runs at one batch size only ({reason}); export it with dynamic_shapes for dimension 0"
        ) from exc
    nodes = output_nodes(module)
    specs = []
    for index, node in enumerate(nodes):
        name = "output" if len(nodes) == 1 else f"output_{index}"
        shape = shapes.per_sample(node.name)
        if shape is None:
            sizes = ["batch" if size == PROBE else size for size in shapes.full[node.name]]
            raise UnsupportedModelError(f"the first dimension of {name!r} is not the batch; its shape is {sizes}")
        specs.append(TensorSpec(name, shape, shapes.dtypes[node.name]))
    return tuple(specs)


def verify(program: ExportedProgram, graph: Graph) -> None:
    """Compares the graph with the program on random inputs, at another batch size where the program fixes one.

    Raises:
        SurgeryError: They differ; our fault.
        ModelError: The program's own outputs are not finite.
        UnsupportedModelError: They differ only because the program mixes samples of its one batch size.
    """
    fixed = _fixed_batch(program)
    batch = fixed or 2
    samples = graph.samples(2 * batch)
    parts = [tuple(x[start : start + batch] for x in samples) for start in (0, batch)]
    with torch.no_grad():
        wanted = [_run(program, part) for part in parts]
        got = graph.module(*samples)
    got = got if isinstance(got, tuple) else (got,)
    for index, right in enumerate(got):
        left = torch.cat([outputs[index] for outputs in wanted])
        error = _relative(left, right)
        if not bool(left.isfinite().all()) and not error <= _TOLERANCE:
            raise ModelError(
                f"output {index} of the model is NaN or infinite on random inputs of ordinary size, so that "
                "nothing can be checked; are its weights intact?"
            )
        if not error <= _TOLERANCE and fixed:
            raise UnsupportedModelError(
                f"the model was exported for batch size {fixed} only, and cannot be freed from it (error {error:.3g}); "
                "export it with dynamic_shapes for dimension 0"
            )
        if not error <= _TOLERANCE:
            raise SurgeryError(f"the lifted graph of {graph.name!r} differs from the program by {error:.3g} (relative)")


def _relative(left: torch.Tensor, right: torch.Tensor) -> float:
    if left.shape != right.shape:
        return float("inf")
    scale = left.double().abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    return float((left.double() - right.double()).abs().max() / scale)


def _fixed_batch(program: ExportedProgram) -> int | None:
    """Returns the batch size that the program was exported for, None if it is free."""
    names = program.graph_signature.user_inputs
    shapes = [n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    return next((shape[0] for shape in shapes if isinstance(shape[0], int)), None)


def _run(program: ExportedProgram, inputs: tuple[torch.Tensor, ...]) -> Sequence[torch.Tensor]:
    """Runs the program as it is, on copies: its in-place operators write their inputs."""
    values = {**program.constants, **program.state_dict}
    data = iter(inputs)
    flat = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            flat.append(values[str(spec.target)])
        else:
            flat.append(next(data).clone() if _is_data(spec) else getattr(spec.arg, "value", None))
    return program.graph_module(*flat)  # type: ignore[no-any-return]
