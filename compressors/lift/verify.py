"""The proof that a lifted graph computes what its program computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from compressors.errors import ModelError, SurgeryError, UnsupportedModelError, reason
from compressors.graph import Graph
from compressors.lift.edges import is_data

_TOLERANCE = 1e-5
"""Relative. The graph runs the same kernels on the same numbers; only fused paths may round differently in float32."""
_ROUNDINGS = 8
"""Units in the last place that a type coarser than float32 may lose when the batch size changes the kernel."""
_CHUNK = 2**20
"""Numbers that are compared at a time, so that large outputs are not held in float64."""


def verify(program: ExportedProgram, graph: Graph) -> None:
    """Compares the graph with the program on random inputs, at another batch size where the program fixes one.

    Masks are ones but for the end of the last sample, so that both of their values occur.

    Raises:
        SurgeryError: They differ; our fault.
        ModelError: The program does not run, or its own outputs are not finite.
        UnsupportedModelError: They differ only because the program mixes samples of its one batch size.
    """
    fixed = _fixed_batch(program)
    samples = _samples(graph, 2 * fixed if fixed else 2)
    parts = [tuple(x[start : start + fixed] for x in samples) for start in (0, fixed)] if fixed else [samples]
    with torch.no_grad():
        wanted = [_run(program, part) for part in parts]
        got = graph.module(*samples)
    got = got if isinstance(got, tuple) else (got,)
    for index, right in enumerate(got):
        if wanted[0][index].dim() == 0:
            raise UnsupportedModelError(
                f"output {index} of the model has no batch dimension; return one row per sample"
            )
        left = torch.cat([outputs[index] for outputs in wanted]) if fixed else wanted[0][index]
        error, tolerance = _relative(left, right), _tolerance(right.dtype)
        if not error <= tolerance and not bool(left.isfinite().all()):
            raise ModelError(
                f"output {index} of the model is NaN or infinite on random inputs of ordinary size, so that nothing "
                "can be checked; are its weights intact?"
            )
        if not error <= tolerance and fixed:
            raise UnsupportedModelError(
                f"the model was exported for batch size {fixed} only, and cannot be freed from it (error {error:.3g}); "
                "export it with dynamic_shapes for dimension 0"
            )
        if not error <= tolerance:
            raise SurgeryError(f"the lifted graph of {graph.name!r} differs from the program by {error:.3g} (relative)")


def _tolerance(dtype: torch.dtype) -> float:
    """Returns the relative error that rounding alone may cause; integers are exact."""
    inexact = dtype.is_floating_point or dtype.is_complex
    return max(_TOLERANCE, _ROUNDINGS * torch.finfo(dtype).eps) if inexact else 0.0


def _samples(graph: Graph, batch: int) -> tuple[torch.Tensor, ...]:
    samples = graph.samples(batch)
    for spec, values in zip(graph.inputs, samples, strict=True):
        if spec.is_mask and spec.shape:
            values[-1, ..., spec.shape[-1] - spec.shape[-1] // 4 :] = 0
    return samples


def _relative(left: torch.Tensor, right: torch.Tensor) -> float:
    """Returns the largest difference over the largest value; values that are equal, infinities too, do not differ."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return float("inf")
    difference, scale = 0.0, torch.finfo(torch.float64).tiny
    for a, b in zip(torch.split(left.flatten(), _CHUNK), torch.split(right.flatten(), _CHUNK), strict=True):
        same = a == b
        if bool(same.all()):
            continue
        wide = torch.complex128 if a.is_complex() else torch.float64
        apart = (a.to(wide) - b.to(wide)).abs()[~same]
        if not bool(apart.isfinite().all()):
            return float("inf")
        difference = max(difference, float(apart.max()))
    if difference:
        finite = left[left.isfinite()]
        scale = max(scale, float(finite.abs().max()) if finite.numel() else 0.0)
    return difference / scale


def _fixed_batch(program: ExportedProgram) -> int | None:
    """Returns the batch size that the program was exported for, None if it is free."""
    names = program.graph_signature.user_inputs
    shapes = [n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder" and n.name in names]
    return next((shape[0] for shape in shapes if isinstance(shape[0], int)), None)


def _run(program: ExportedProgram, inputs: tuple[torch.Tensor, ...]) -> Sequence[torch.Tensor]:
    """Runs the program as it is, on copies: its in-place operators write their inputs.

    Raises:
        ModelError: It does not run.
    """
    values = {**program.constants, **program.state_dict}
    data = iter(inputs)
    flat = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            flat.append(values[str(spec.target)])
        else:
            flat.append(next(data).clone() if is_data(spec) else getattr(spec.arg, "value", None))
    try:
        return [value for value in program.graph_module(*flat) if value is not None]
    except (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError) as exc:
        raise ModelError(f"the model does not run on random samples: {reason(exc)}; export it again") from exc
