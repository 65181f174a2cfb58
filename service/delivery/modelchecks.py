"""Whether a delivered model is the one that its manifest describes, and runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx

from deploy.artifact import hash_model
from deploy.devices import explain_misfit
from deploy.errors import DeployError
from deploy.modelfile import open_model, weight_files
from deploy.runtimes import Session, SessionSettings, find_runtime
from deploy.tensors import Array, TensorInfo
from service.delivery.checks import ABSENT, Check, failed, ok, skipped
from service.delivery.manifest import Manifest, TensorEntry

BATCHES = (1, 3)
"""That a model with a free batch is run at."""

MAX_ELEMENTS = 1 << 28
"""Of one input; a model that asks for more is not run."""

Shape = tuple[int | str, ...]


def check_model(folder: Path, manifest: Manifest) -> list[Check]:
    """Returns whether the file opens, keeps to its folder, and has the inputs and outputs of the manifest.

    Args:
        folder: A folder whose files are those of the manifest.
        manifest: Its manifest.
    """
    wanted, path = manifest.model, folder / manifest.model.filename
    try:
        sha256, _ = hash_model(path)
        model = open_model(path)
    except DeployError as exc:
        return [failed("model", wanted.filename, str(exc))]
    if sha256 != wanted.sha256:
        return [failed("model", wanted.filename, "is another model by its SHA-256", sha256, wanted.sha256)]
    if (weights := weight_files(model)) != wanted.weights:
        return [failed("model", wanted.filename, "keeps its weights in other files", weights, wanted.weights)]
    stored = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    return [
        ok("model", wanted.filename, "opens, and is valid ONNX"),
        _check_edge(wanted.filename, "inputs", inputs, wanted.inputs),
        _check_edge(wanted.filename, "outputs", model.graph.output, wanted.outputs),
    ]


def _check_edge(name: str, what: str, found: Sequence[onnx.ValueInfoProto], wanted: Sequence[TensorEntry]) -> Check:
    there = [_described(value) for value in found]
    asked = [f"{entry.name}: {entry.dtype} {_plain(entry.shape)}" for entry in wanted]
    if there != asked:
        return failed("model", name, f"has other {what} than the manifest says", "; ".join(there), "; ".join(asked))
    return ok("model", name, f"{what} {'; '.join(there)}")


def _described(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
    except (KeyError, TypeError):
        dtype = f"type {kind.elem_type}"
    sizes = (size.dim_value if size.HasField("dim_value") else "free" for size in kind.shape.dim)
    return f"{value.name}: {dtype} {_plain(tuple(sizes))}"


def _plain(shape: Shape) -> str:
    return "(" + ", ".join(str(size) if isinstance(size, int) else "free" for size in shape) + ")"


def check_run(folder: Path, manifest: Manifest) -> list[Check]:
    """Returns whether the model gives finite outputs of the stated shapes on random inputs.

    It runs with the runtime and on the device that it was measured with. Where those are not here, ONNX Runtime on the
    processor stands in: what it says of the model is said, but that it cannot run it is no fault of the model.

    Args:
        folder: A folder that passed `check_model`.
        manifest: Its manifest.
    """
    name, device = manifest.model.filename, manifest.device.local_name
    settings = SessionSettings(manifest.runtime.threads, device=device, batch=manifest.budget.batch)
    if misfit := explain_misfit(manifest.runtime.name, device):
        return [failed("run", name, misfit)]
    try:
        session = find_runtime(manifest.runtime.name, device).load(folder / name, settings)
    except ABSENT as exc:
        return _stand_in(folder / name, manifest, str(exc))
    except DeployError as exc:
        return [failed("run", name, str(exc))]
    return _runs(session, manifest)


def _stand_in(path: Path, manifest: Manifest, why: str) -> list[Check]:
    try:
        session = find_runtime("onnxruntime").load(path, SessionSettings(manifest.runtime.threads))
    except DeployError as exc:
        return [skipped("run", path.name, f"was not run. {why}. Nor can the processor stand in: {exc}")]
    wanted = f"{manifest.runtime.name} on {manifest.device.local_name}"
    checks = _runs(session, manifest)
    return [replace(check, message=f"{check.message}, where {wanted} is not here") for check in checks]


def _runs(session: Session, manifest: Manifest) -> list[Check]:
    batches = BATCHES if session.fixed_batch is None else (session.fixed_batch,)
    return [_run(session, manifest, batch) for batch in batches]


def _run(session: Session, manifest: Manifest, batch: int) -> Check:
    subject = f"batch {batch}"
    infos = [_info(entry) for entry in manifest.model.inputs]
    most = max(batch * prod(size or 1 for size in info.shape) for info in infos)
    if most > MAX_ELEMENTS:
        return failed("run", subject, "an input is too large to try", f"{most} numbers", f"at most {MAX_ELEMENTS}")
    try:
        outputs = session.run([info.random(batch, seed) for seed, info in enumerate(infos)])
    except DeployError as exc:
        return failed("run", subject, str(exc))
    faults = list(_faults(outputs, manifest.model.outputs, batch))
    if faults:
        return faults[0]
    shapes = ", ".join(f"{entry.name} {output.shape}" for entry, output in _pairs(manifest, outputs))
    runtime = session.describe()
    return ok("run", subject, f"finite outputs: {shapes}, in {runtime.name} {runtime.version}")


def _pairs(manifest: Manifest, outputs: Sequence[Array]) -> Iterator[tuple[TensorEntry, Array]]:
    return zip(manifest.model.outputs, outputs, strict=True)


def _faults(outputs: Sequence[Array], wanted: Sequence[TensorEntry], batch: int) -> Iterator[Check]:
    for entry, values in zip(wanted, outputs, strict=True):
        shape = tuple(batch if not place else size for place, size in enumerate(entry.shape))
        fits = len(shape) == values.ndim and all(
            isinstance(size, str) or size == got for size, got in zip(shape, values.shape, strict=True)
        )
        subject = f"batch {batch}"
        if not fits:
            yield failed("run", subject, f"output {entry.name} has another shape", values.shape, shape)
        elif np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            yield failed("run", subject, f"output {entry.name} is not finite", f"{bad} of {values.size}", "none")


def _info(entry: TensorEntry) -> TensorInfo:
    """Returns an input whose free sizes are 1."""
    sizes = tuple(size if isinstance(size, int) else 1 for size in entry.shape[1:])
    return TensorInfo(entry.name, sizes, entry.dtype, entry.low, entry.high)
