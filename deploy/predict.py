"""Outputs of a model file on samples, computed by running the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from deploy.evaluate import Batch, EvaluationSettings
from deploy.machine import usable_cores
from deploy.runtimes import SessionSettings, find_runtime
from deploy.tensors import Array


def predict(
    path: Path, batches: Iterable[Batch], settings: EvaluationSettings | None = None
) -> Iterator[tuple[Array, ...]]:
    """Yields the model file's outputs batch by batch, each (batch, ...).

    Args:
        path: The model file.
        batches: Preprocessed inputs and targets; the latter are not looked at.
        settings: How to run it.

    Raises:
        ModelFileError: If the file cannot be loaded.
        DataError: If the inputs do not fit the model.
    """
    settings = settings or EvaluationSettings()
    loading = SessionSettings(settings.threads or usable_cores(), device=settings.device)
    session = find_runtime(settings.runtime, settings.device).load(path, loading)
    for inputs, _ in batches:
        yield tuple(session.run(inputs))
