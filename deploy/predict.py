"""Outputs of a model file on samples, computed by running the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from deploy.bench import Bench, Feed
from deploy.evaluate import Batch


def predict(path: Path, batches: Iterable[Batch], bench: Bench) -> Iterator[Feed]:
    """Yields the model file's outputs batch by batch, each (batch, ...).

    Args:
        path: The model file.
        batches: Preprocessed inputs and targets; the latter are not looked at.
        bench: Where it runs.

    Raises:
        ModelFileError: If the file cannot be loaded.
        DataError: If the inputs do not fit the model.
    """
    return bench.run(path, (inputs for inputs, _ in batches))
