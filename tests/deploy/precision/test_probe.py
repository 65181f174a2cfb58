from __future__ import annotations

from pathlib import Path

import pytest

from deploy.bench import LocalBench
from deploy.bench.perform import perform
from deploy.bench.remote import RemoteBench
from deploy.bench.work import Answer, Question
from deploy.errors import (
    DataError,
    DeployError,
    DeviceFailedError,
    DeviceMemoryError,
    DeviceMissingError,
    EngineBuildError,
    EngineOperatorError,
    MeasureError,
    ModelFileError,
    RuntimeMissingError,
)
from deploy.precision.probe import probe


def test_float32_runs_everywhere_as_it_is() -> None:
    ability = probe(LocalBench("onnxruntime"), "float32")
    assert (ability.refusal, ability.computes) == (None, "float32")


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_onnx_runtime_runs_float16_and_int8(precision: str) -> None:
    ability = probe(LocalBench("onnxruntime"), precision)
    assert ability.refusal is None
    assert ability.computes in (precision, "float32")


def test_a_refusal_is_in_the_runtime_s_words() -> None:
    ability = probe(LocalBench("onnxruntime"), "bfloat16")
    # Kernels for it may come; until then the reason names what is missing.
    assert ability.refusal is None or "Conv" in ability.refusal


def test_openvino_runs_all_of_them() -> None:
    pytest.importorskip("openvino")
    assert [probe(LocalBench("openvino"), precision).refusal for precision in ("float16", "bfloat16", "int8")] == [
        None
    ] * 3


def test_a_runtime_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RuntimeMissingError):
        probe(LocalBench("nonsense"), "float16")


def failing(folder: Path, kind: type[DeployError], suffix: str = ".onnx") -> RemoteBench:
    """A device that answers everything as this machine does, but fails to run files whose name ends so."""

    def ask(question: Question) -> Answer:
        if question.kind == "run" and question.files[0].name.endswith(suffix):
            raise kind("the device's own words")
        home = folder / str(len(list(folder.iterdir())))
        home.mkdir()
        return perform(question, home)

    return RemoteBench("onnxruntime", "cpu", ask, folder / "scratch")


@pytest.mark.parametrize(
    "kind", [MeasureError, DeviceMemoryError, DeviceFailedError, DeviceMissingError, EngineBuildError, DataError]
)
def test_a_device_that_fails_says_nothing_about_a_precision(kind: type[DeployError], tmp_path: Path) -> None:
    with pytest.raises(kind, match="the device's own words"):
        probe(failing(tmp_path, kind), "float16")


@pytest.mark.parametrize("kind", [ModelFileError, EngineOperatorError, EngineBuildError, DataError])
def test_a_network_that_fails_in_this_precision_alone_is_a_refusal(kind: type[DeployError], tmp_path: Path) -> None:
    assert probe(failing(tmp_path, kind, "float16.onnx"), "float16").refusal == "the device's own words"
