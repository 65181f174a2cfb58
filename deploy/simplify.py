"""Simplifies an ONNX graph with onnxsim, and keeps the result only if the function is the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from deploy.cleaning import clean, serialise
from deploy.errors import DeployError
from deploy.runtimes import SessionSettings, find_runtime
from deploy.tensors import Array

_BATCHES = (2, 3)
_TOLERANCE = 1e-4
_RUNTIME = "onnxruntime"


def simplify(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Returns the simplified model and no notes, or the model as it was and a note that says why.

    The simplified model must load, and agree with the original on random inputs at two batch sizes to 1e-4 of the
    largest output.
    """
    import onnxsim

    try:
        simplified, _ = onnxsim.simplify(model, certify=False)
    except Exception as exc:  # noqa: BLE001  whatever goes wrong in there, the model is good without it
        return model, (f"not simplified: onnxsim failed with {type(exc).__name__}: {exc}",)
    simplified = clean(simplified)
    reason = _difference(model, simplified)
    return (model, (f"not simplified: {reason}",)) if reason else (simplified, ())


def _difference(original: onnx.ModelProto, simplified: onnx.ModelProto) -> str | None:
    names = [[value.name for value in (*model.graph.input, *model.graph.output)] for model in (original, simplified)]
    if names[0] != names[1]:
        return f"onnxsim changed the inputs and outputs from {names[0]} to {names[1]}"
    try:
        wanted, got = (_outputs(model) for model in (original, simplified))
    except DeployError as exc:
        return f"the comparison failed: {exc}"
    error = max(_relative_error(*pair) for pair in zip(wanted, got, strict=True))
    return None if error <= _TOLERANCE else f"onnxsim changed the outputs by {error:.1e} of the largest value"


def _outputs(model: onnx.ModelProto) -> Sequence[Array]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(serialise(model))
        session = find_runtime(_RUNTIME).load(path, SessionSettings())
        return [
            output
            for batch in _batches(model)
            for output in session.run([spec.random(batch, seed) for seed, spec in enumerate(session.inputs)])
        ]


def _batches(model: onnx.ModelProto) -> tuple[int, ...]:
    sizes = [value.type.tensor_type.shape.dim[0] for value in model.graph.input]
    fixed = [size.dim_value for size in sizes if size.HasField("dim_value")]
    return (fixed[0],) if fixed else _BATCHES


def _relative_error(wanted: Array, got: Array) -> float:
    if wanted.shape != got.shape or not np.isfinite(got).all():
        return float("inf") if not np.array_equal(wanted, got, equal_nan=True) else 0.0
    difference = np.abs(wanted.astype(np.float64) - got.astype(np.float64)).max(initial=0.0)
    return float(difference / max(float(np.abs(wanted).max(initial=0.0)), 1e-12))
