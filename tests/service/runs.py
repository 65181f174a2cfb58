"""Whole jobs in this process: a model and samples in, a report and its files out. Times are taken as they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from service.pipeline.pipeline import optimize
from service.report.schema import Report
from service.spec import Budget, DataReference, DataSplit, FineTuning, JobSpec, ModelSource, StrategyChoice
from service.worker.messages import WorkOrder

MODEL, TRAIN, VALIDATION = "artifacts/model", "artifacts/train", "artifacts/validation"
QUICK: dict[str, Any] = {"selection_samples": 64, "refinements": 1, "comparisons": 1, "plans": 1}


def quiet(phase: str, fraction: float, message: str, metrics: Any = None) -> None:
    """A listener who does not listen."""


def run(folder: Path, source: ModelSource, files: dict[str, Path], **changes: Any) -> Report:
    """Returns the report of a job with quick options; what is shipped lies in `folder / "job" / "out"`."""
    fields: dict[str, Any] = {
        "model": source,
        "budget": Budget(fraction=0.9),
        "strategy": StrategyChoice(options=QUICK),
        "data": DataReference(
            train=DataSplit(artifact=TRAIN), validation=DataSplit(artifact=VALIDATION) if VALIDATION in files else None
        ),
        "fine_tuning": FineTuning(epochs=1, batch=16, learning_rate=1e-3),
        "time_limit": "240s",
    }
    job = folder / "job"
    job.mkdir()
    order = WorkOrder(
        job="optimizationJobs/test",
        task="optimize",
        spec=JobSpec.model_validate(fields | changes),
        files=files,
        folder=job,
        cache_folder=folder,
        deadline_seconds=240,
    )
    return optimize(order, quiet)


def write_pt2(module: nn.Module, path: Path, *inputs: torch.Tensor) -> Path:
    """Saves a module as a `.pt2` file that takes any batch size."""
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in inputs)
    torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=shapes), path)
    return path


def write_npz(path: Path, **arrays: Any) -> Path:
    """Writes an archive of arrays."""
    np.savez(path, **arrays)
    return path
