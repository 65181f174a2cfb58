"""Checks that an exported file computes what the torch module computes."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from deploy.artifact import Artifact
from deploy.bench import Bench, LocalBench
from deploy.errors import DataError
from deploy.tensors import Array

_HERE = LocalBench()

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1, "int8": 1e-1}
"""Largest error allowed, relative to the largest output of the batch, by precision.

float32: sums of a few thousand products in another order differ by some 1e-6 per layer. float16 has 11 bits, so 5e-4
per operation, and bfloat16 8; `deploy.precision.bound` derives a bound for a file of these. int8 is a different
function, and only gross faults can be seen this way.
"""


@dataclass(frozen=True)
class BatchAgreement:
    """How far file and module differ on one batch.

    Attributes:
        batch: Samples in it.
        max_abs_error: Largest absolute difference over all outputs; infinite where a value or shape is missing.
        max_relative_error: The same, relative to the largest absolute value of that output.
        tolerance: Largest `max_relative_error` that passes.
        passed: Whether it does.
    """

    batch: int
    max_abs_error: float
    max_relative_error: float
    tolerance: float
    passed: bool


@dataclass(frozen=True)
class Agreement:
    """How far file and module differ at several batch sizes.

    Attributes:
        batches: One entry per batch size.
        on_samples: Whether real samples were used; otherwise random normal values.
    """

    batches: tuple[BatchAgreement, ...]
    on_samples: bool

    @property
    def passed(self) -> bool:
        """Returns whether every batch passed."""
        return all(entry.passed for entry in self.batches)


def agree(
    artifact: Artifact,
    module: nn.Module,
    batches: Sequence[int] = (1, 3, 8),
    samples: Sequence[Array] | None = None,
    bench: Bench = _HERE,
    tolerance: float | None = None,
) -> Agreement:
    """Returns how far the file's outputs are from the module's, at each batch size.

    Where they are farther than allowed, the module is run in float64 and what counts is how far the file is from that:
    a network in which roundings grow may itself be farther off in float32 than the file, whose operators were merged.

    Args:
        artifact: The exported file.
        module: The float32 module it was made from, in eval mode, on the processor.
        batches: Batch sizes to try.
        samples: Real inputs, one array per input, shape (n, *shape); repeated where n is below the batch size. None
            draws random normal values.
        bench: Where the file is run.
        tolerance: Largest error allowed, relative to the largest output; None takes that of the precision.

    Raises:
        ModelFileError: If the file cannot be loaded.
        DataError: If the samples do not fit the model.
    """
    allowed = TOLERANCES[artifact.precision] if tolerance is None else tolerance
    feeds = [tuple(_feeds(artifact, batch, samples)) for batch in batches]
    entries = []
    for batch, feed, outputs in zip(batches, feeds, bench.run(artifact.path, feeds, threads=1), strict=True):
        errors = _errors(_expected(module, feed), outputs)
        if errors[1] > allowed and (exact := _exactly(module, feed)) is not None:
            errors = _errors(exact, outputs)
        entries.append(BatchAgreement(batch, *errors, allowed, errors[1] <= allowed))
    return Agreement(tuple(entries), samples is not None)


def _feeds(artifact: Artifact, batch: int, samples: Sequence[Array] | None) -> list[Array]:
    if samples is None:
        return [spec.random(batch, index) for index, spec in enumerate(artifact.inputs)]
    if len(samples) != len(artifact.inputs) or any(len(values) == 0 for values in samples):
        msg = f"samples must be one non-empty array for each of {len(artifact.inputs)} inputs, got {len(samples)}"
        raise DataError(msg)
    return [values[np.arange(batch) % len(values)] for values in samples]


def _expected(module: nn.Module, feeds: Sequence[Array]) -> list[Array]:
    with torch.no_grad():
        result = module(*(torch.from_numpy(value) for value in feeds))
    outputs = result if isinstance(result, (tuple, list)) else (result,)
    return [output.numpy() for output in outputs]


def _exactly(module: nn.Module, feeds: Sequence[Array]) -> list[Array] | None:
    """Returns the outputs in float64; None of a module that does not run in it, as where it converts by itself."""
    try:
        wide = [value.astype(np.float64) if value.dtype == np.float32 else value for value in feeds]
        return _expected(deepcopy(module).double(), wide)
    except (RuntimeError, TypeError, NotImplementedError):
        return None


def _errors(wanted: Sequence[Array], got: Sequence[Array]) -> tuple[float, float]:
    """Returns the largest absolute and relative difference over all outputs."""
    if len(wanted) != len(got):
        return float("inf"), float("inf")
    pairs = [_error(*pair) for pair in zip(wanted, got, strict=True)]
    return max(absolute for absolute, _ in pairs), max(relative for _, relative in pairs)


def _error(wanted: Array, got: Array) -> tuple[float, float]:
    if wanted.shape != got.shape or not (np.isfinite(wanted).all() and np.isfinite(got).all()):
        return float("inf"), float("inf")
    absolute = float(np.abs(wanted.astype(np.float64) - got.astype(np.float64)).max(initial=0.0))
    scale = float(np.abs(wanted).max(initial=0.0))
    return absolute, absolute / scale if scale else (0.0 if absolute == 0 else float("inf"))
