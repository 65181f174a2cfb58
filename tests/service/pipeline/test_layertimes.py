from __future__ import annotations

from pathlib import Path

import pytest

from compressors.memory import NoMemory
from deploy.bench import LocalBench
from deploy.layers import summarise_network
from deploy.measure.settings import TimingSettings
from service.pipeline.layertimes import profiled, with_times
from service.report.assemble import _layer
from service.report.render import render
from service.report.schema import Report
from tests.service.delivery.made import write_model
from tests.service.report import made, networks


def report_of(*paths: Path) -> Report:
    timed = [
        networks.network(path.name, str(index) * 2, networks.latency(1.0, 0), None).model_copy(
            update={"layers": tuple(map(_layer, summarise_network(path).layers))}
        )
        for index, path in enumerate(paths)
    ]
    return made.report(baseline=timed[0], result=timed[-1])


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_model(tmp_path / "baseline.onnx", repeat=4), write_model(tmp_path / "model.onnx")


def test_each_layer_of_both_files_has_its_time(files: tuple[Path, Path]) -> None:
    found = profiled(files, TimingSettings(), NoMemory(), LocalBench())
    report = with_times(report_of(*files), files, found)
    for network, convolutions in ((report.baseline, 5), (report.result, 1)):
        assert network.profile is not None
        added = sum(each.milliseconds for each in network.profile.added)
        told = [layer.milliseconds for layer in network.layers if layer.milliseconds is not None]
        assert sum(told) + added == pytest.approx(network.profile.milliseconds)
        assert len([layer for layer in network.layers if layer.op == "Conv"]) == convolutions
    page = render(report)
    assert "Where the time goes" in page
    assert "Told by onnxruntime" in page


def test_the_original_as_the_result_has_the_same_times(files: tuple[Path, Path]) -> None:
    found = profiled(files[:1], TimingSettings(), NoMemory(), LocalBench())
    report = with_times(report_of(files[0]), files[:1], found)
    assert report.result.profile == report.baseline.profile is not None
    assert report.result.layers == report.baseline.layers


def test_a_job_ends_well_without_times(tmp_path: Path, files: tuple[Path, Path]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    found = profiled(files, TimingSettings(), NoMemory(), LocalBench())
    assert found == (None, None)
    report = made.report()
    assert with_times(report, files, found) == report
    assert "Where the time goes" not in render(report)
