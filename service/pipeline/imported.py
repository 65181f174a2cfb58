"""Imported ONNX files, run beside what they were imported to, before anything else is done with them.

The importer is ours and ONNX Runtime is not, so where the two agree on random inputs at several batch sizes, the import
is right; where they do not, it is our fault and the job ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import fx

from compressors.errors import ModelError
from compressors.graph import Graph, TensorSpec
from compressors.sources.onnx import find_model
from compressors.sources.unpack import is_archive, unpack
from deploy.errors import DataError, ModelFileError
from deploy.runtimes import Session, SessionSettings, find_runtime
from deploy.tensors import Array
from service.errors import WrongImportError

TOLERANCE = 1e-5
"""Largest error allowed, relative to the largest value of an output. Both sum float32 products in other orders."""

ROUNDING_FACTOR = 10.0
"""Where the graph's own rounding (its distance from itself in float64) is larger, so many times that is allowed."""

BATCHES = (1, 2, 5)


def onnx_file(path: Path, folder: Path) -> Path:
    """Returns the `.onnx` file itself: the path, or what the archive there holds, unpacked into `folder`.

    Raises:
        ModelError: The archive is damaged, or holds no or several models.
        UnsafeModelError: The archive is not safe to unpack.
    """
    if not is_archive(path):
        return path
    folder.mkdir(parents=True)
    return find_model(unpack(path, folder), path.name)


def check_import(path: Path, graph: Graph) -> None:
    """Makes sure that a graph computes what the ONNX file does, at the batch sizes that the file allows.

    Args:
        path: The `.onnx` file, its external data beside it.
        graph: What it was imported to.

    Raises:
        WrongImportError: They disagree; our fault.
        ModelError: ONNX Runtime cannot load or run the file.
    """
    try:
        session = find_runtime("onnxruntime").load(path, SessionSettings())
    except ModelFileError as exc:
        raise ModelError(f"{exc}; Shoal checks every import against ONNX Runtime") from exc
    batches = BATCHES if session.fixed_batch is None else (session.fixed_batch,)
    ran = [_check_batch(session, graph, batch) for batch in batches]
    if not any(ran):
        raise ModelError(
            f"ONNX Runtime cannot run {path.name} at any of the batch sizes {batches}, so it cannot be checked"
        )


def _check_batch(session: Session, graph: Graph, batch: int) -> bool:
    """Compares one batch; returns whether ONNX Runtime takes that size."""
    samples = [_values(graph, spec, batch, seed) for seed, spec in enumerate(graph.inputs)]
    try:
        wanted = session.run([sample.numpy() for sample in samples])
    except DataError:
        return False
    got = _run(graph.module, samples)
    names = [spec.name for spec in graph.outputs]
    errors = [_error(*pair) for pair in zip(wanted, got, strict=True)]
    if max(errors) <= TOLERANCE:
        return True
    exact = _run(deepcopy(graph.module).double(), [_wide(sample) for sample in samples])
    for name, error, rounded, true in zip(names, errors, got, exact, strict=True):
        allowed = max(TOLERANCE, ROUNDING_FACTOR * _error(true, rounded))
        if not error <= allowed:
            raise WrongImportError(
                f"Shoal imported the ONNX file wrongly: output {name!r} differs from ONNX Runtime's by {error:.2g} "
                f"(relative, at batch size {batch}; allowed is {allowed:.2g}). This is a fault of Shoal, not of the "
                "model; please report it. Until it is mended, export the network with torch.export.save instead"
            )
    return True


def _run(module: fx.GraphModule, samples: Sequence[torch.Tensor]) -> list[Array]:
    with torch.no_grad():
        result = module(*samples)
    outputs = result if isinstance(result, tuple | list) else (result,)
    return [output.numpy() for output in outputs]


def _wide(sample: torch.Tensor) -> torch.Tensor:
    return sample.double() if sample.is_floating_point() else sample


def _error(wanted: Array, got: Array) -> float:
    """Returns the largest difference relative to the largest value; infinite where shapes or gaps differ."""
    if wanted.shape != got.shape:
        return float("inf")
    left, right = wanted.astype(np.float64), got.astype(np.float64)
    if not np.array_equal(np.isfinite(left), np.isfinite(right)):
        return float("inf")
    left, right = (np.nan_to_num(values, posinf=0.0, neginf=0.0) for values in (left, right))
    scale = np.abs(left).max(initial=0.0)
    return float(np.abs(left - right).max(initial=0.0) / (scale or 1.0))


def _values(graph: Graph, spec: TensorSpec, batch: int, seed: int) -> torch.Tensor:
    """Returns random values that the model can take: integers that index a table stay within it."""
    rows = _rows(graph, spec.name)
    if rows is None or spec.dtype.is_floating_point:
        return spec.random(batch, seed)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, rows, (batch, *spec.shape), generator=generator, dtype=spec.dtype)


def _rows(graph: Graph, name: str) -> int | None:
    """Returns the number of rows of the smallest table that an input indexes, None if it indexes none."""
    placeholder = next(node for node in graph.module.graph.nodes if node.op == "placeholder" and node.name == name)
    return min(_tables(graph, placeholder), default=None)


_PASSING = (torch.ops.aten.to.dtype, torch.ops.aten.where.self, torch.ops.aten.where.ScalarOther)


def _tables(graph: Graph, node: fx.Node) -> list[int]:
    found: list[int] = []
    for user in node.users:
        if user.target is torch.ops.aten.embedding.default and user.args[1] is node:
            weight = user.args[0]
            if isinstance(weight, fx.Node) and weight.op == "get_attr":
                found.append(_attribute(graph, str(weight.target)).shape[0])
        elif user.target in _PASSING:
            found += _tables(graph, user)
    return found


def _attribute(graph: Graph, path: str) -> torch.Tensor:
    owner, _, leaf = path.rpartition(".")
    value: torch.Tensor = getattr(graph.module.get_submodule(owner), leaf)
    return value
