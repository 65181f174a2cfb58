"""Whole jobs in each precision, from a model and samples to files and a report."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch

from compressors.errors import OptionError
from deploy.bench import LocalBench
from deploy.precision.model import stored_precision
from deploy.precision.probe import probe
from service.report.render import render
from service.report.schema import Report
from service.spec import Budget, ModelSource, Target
from tests.service.pipeline.test_pipeline import RAW, Pictures, outputs, picture_job, pictures, trained
from tests.service.runs import MODEL, TRAIN, run, write_npz, write_pt2


def job(folder: Path, precision: str, runtime: str = "onnxruntime", **changes: object) -> Report:
    torch.manual_seed(0)
    target = Target(precision=precision, runtime=runtime)  # type: ignore[arg-type]
    return picture_job(folder, trained(Pictures()), target=target, **changes)


def check(report: Report, folder: Path) -> None:
    """Whatever shipped is what the report says, and never slower than the original."""
    shipped = onnx.load(folder / "job" / "out" / "model.onnx")
    assert report.result.precision is not None
    assert report.baseline.precision is not None
    assert report.baseline.precision.precision == "float32"
    assert stored_precision(shipped) == report.result.precision.precision
    assert [one.precision for one in report.precisions if one.chosen] == [report.result.precision.precision] or (
        report.outcome == "NO_IMPROVEMENT"
    )
    assert report.speedup.value == 1.0 or report.speedup.low > 1.0
    edges = [value.type.tensor_type.elem_type for value in (*shipped.graph.input, *shipped.graph.output)]
    assert edges == [onnx.TensorProto.FLOAT] * 2
    images, labels = pictures(60, 2)
    if report.result.precision.precision != "bfloat16":
        (scores,) = outputs(folder, "model.onnx", images)
        assert report.result.accuracy is not None
        assert report.result.accuracy.top1 == pytest.approx((scores.argmax(1) == labels).mean(), abs=0.05)
    read = Report.model_validate_json((folder / "job" / "out" / "report.json").read_text())
    assert (read.precisions, read.result.precision) == (report.precisions, report.result.precision)
    assert 'id="precision"' in render(report)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["PRECISION_FP16", "PRECISION_INT8", "PRECISION_AUTO"])
def test_a_job_ships_in_its_precision(tmp_path: Path, precision: str) -> None:
    report = job(tmp_path, precision, budget=Budget(fraction=0.7))
    check(report, tmp_path)
    tried = [one.precision for one in report.precisions]
    assert tried == {"PRECISION_FP16": ["float32", "float16"], "PRECISION_INT8": ["float32", "int8"]}.get(
        precision, ["float32", "float16", "bfloat16", "int8"]
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_bfloat16_runs_on_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    check(job(tmp_path, "PRECISION_BF16", "openvino", budget=Budget(fraction=0.7)), tmp_path)


def test_what_the_runtime_cannot_run_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    if probe(LocalBench("onnxruntime"), "bfloat16").refusal is None:
        pytest.skip("this ONNX Runtime runs bfloat16")
    files = {MODEL: tmp_path / "none.pt2", TRAIN: tmp_path / "none.npz"}
    with pytest.raises(OptionError, match="bfloat16"):
        run(tmp_path, ModelSource(pt2_artifact=MODEL), files, target=Target(precision="PRECISION_BF16"))
    assert not (tmp_path / "job" / "out").exists()


@pytest.mark.slow
def test_a_job_that_needs_no_cut_says_what_int8_would_have_been(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images, labels = pictures(96, 1)
    files = {
        MODEL: write_pt2(Pictures(blocks=1), tmp_path / "net.pt2", torch.randn(2, 3, 16, 16)),
        TRAIN: write_npz(tmp_path / "train.npz", images=images, labels=labels),
    }
    target, budget = Target(precision="PRECISION_INT8"), Budget(latency_ms=1e6)
    report = run(tmp_path, ModelSource(pt2_artifact=MODEL), files, preprocessing=RAW, target=target, budget=budget)
    plain, int8 = report.precisions
    assert (plain.precision, plain.agreement, int8.precision) == ("float32", 1.0, "int8")
    assert int8.calibrator is not None
    assert int8.operators > 0
    assert int8.latency_ms is not None
    assert int8.agreement is not None
    # The least change is none at all: the original keeps the budget.
    assert report.result.sha256 == report.baseline.sha256
    assert report.result.precision == report.baseline.precision
    assert json.loads((tmp_path / "job" / "out" / "report.json").read_text())["schema_version"] == "1.3"
    assert "Precisions that were tried" in (tmp_path / "job" / "out" / "report.html").read_text()
