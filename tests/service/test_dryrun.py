"""Dry runs on a real runtime: the floor in each precision that may ship."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from compressors.errors import OptionError
from deploy.bench import LocalBench
from deploy.precision.probe import probe
from service.convert import write_analysis
from service.pipeline.dryrun import analyze
from service.spec import Budget, JobSpec, ModelSource, PrecisionName, Target
from service.worker.messages import AnalysisResult, FloorFacts, WorkOrder
from tests.service.runs import MODEL, quiet, write_pt2


def small() -> nn.Module:
    """Returns a network with one activation."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten(), nn.Linear(2048, 2)
    )


def looked_at(folder: Path, precision: PrecisionName) -> AnalysisResult:
    """Returns the dry run of a small network."""
    torch.manual_seed(0)
    path = write_pt2(small(), folder / "net.pt2", torch.randn(2, 3, 16, 16))
    spec = JobSpec(
        model=ModelSource(pt2_artifact=MODEL), budget=Budget(fraction=0.5), target=Target(precision=precision)
    )
    order = WorkOrder(
        job="analyses/test",
        task="analyze",
        spec=spec,
        files={MODEL: path},
        folder=folder,
        cache_folder=folder,
        deadline_seconds=240,
    )
    return analyze(order, quiet)


def floor_of(found: AnalysisResult) -> FloorFacts:
    """Returns the floor, of which what must hold of every one is checked."""
    floor = found.floor
    assert floor is not None
    assert floor.precisions[0].precision == "float32"
    assert floor.baseline_ms == floor.precisions[0].original_ms
    told = {each.precision: each.floor_ms for each in floor.precisions if each.floor_ms is not None}
    assert floor.floor_ms == min(told.values()) == told[floor.precision]
    assert all(each.floor_ms <= (each.original_ms or 0.0) for each in floor.precisions if each.floor_ms is not None)
    return floor


def test_the_floor_is_told_in_the_precision_that_is_asked_for(tmp_path: Path) -> None:
    found = looked_at(tmp_path, "PRECISION_INT8")
    assert [each.precision for each in floor_of(found).precisions] == ["float32", "int8"]
    told = write_analysis(found).floor
    assert [each.HasField("floor_ms") for each in told.precisions] == [True, True]


def test_what_the_runtime_cannot_run_is_refused_by_name(tmp_path: Path) -> None:
    if probe(LocalBench("onnxruntime"), "bfloat16").refusal is None:
        pytest.skip("this ONNX Runtime runs bfloat16")
    with pytest.raises(OptionError, match="bfloat16"):
        looked_at(tmp_path, "PRECISION_BF16")


@pytest.mark.slow
def test_auto_passes_over_what_the_runtime_cannot_run(tmp_path: Path) -> None:
    if probe(LocalBench("onnxruntime"), "bfloat16").refusal is None:
        pytest.skip("this ONNX Runtime runs bfloat16")
    floor = floor_of(looked_at(tmp_path, "PRECISION_AUTO"))
    told = {each.precision: (bool(each.refusal), each.floor_ms is None) for each in floor.precisions}
    assert told == {
        "float32": (False, False),
        "float16": (False, False),
        "bfloat16": (True, True),
        "int8": (False, False),
    }
