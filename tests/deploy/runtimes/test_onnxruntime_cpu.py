from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from deploy.artifact import Artifact
from deploy.devices import RUNTIME_DEVICES
from deploy.errors import DataError, ModelFileError, RuntimeMissingError
from deploy.runtimes import RUNTIMES, SessionSettings, find_runtime


def test_the_registry_names_every_runtime_by_its_own_name() -> None:
    assert RUNTIMES
    assert all(name == runtime.name and kind in runtime.devices for (name, kind), runtime in RUNTIMES.items())


def test_the_table_of_devices_says_what_the_registry_holds() -> None:
    assert set(RUNTIMES) == {(name, kind) for name, kinds in RUNTIME_DEVICES.items() for kind in kinds}


@pytest.mark.parametrize(
    ("name", "device", "reason"),
    [
        ("tensorrt", "cpu", r"'cpu': it runs on cuda; choose onnxruntime, openvino$"),
        ("openvino", "cuda:1", r"'cuda:1': it runs on cpu; choose onnxruntime, onnxruntime-tensorrt, tensorrt$"),
        ("abacus", "cpu", "no runtime of that name"),
    ],
)
def test_a_runtime_that_cannot_be_had_is_told_with_the_choice(name: str, device: str, reason: str) -> None:
    with pytest.raises(RuntimeMissingError, match=rf"runtime '{name}' .*{reason}"):
        find_runtime(name, device)


def test_a_missing_library_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from deploy.runtimes import find_runtime\n"
        "from deploy.errors import RuntimeMissingError\n"
        "try:\n    find_runtime('onnxruntime').version()\n"
        "except RuntimeMissingError as exc:\n    print(exc)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert "pip install 'shoal[server]'" in done.stdout


def test_the_session_describes_itself(artifact: Artifact) -> None:
    session = find_runtime("onnxruntime").load(artifact.path, SessionSettings(threads=2))
    assert session.describe().version == onnxruntime.__version__
    assert session.describe().providers == ("CPUExecutionProvider",)
    assert session.describe().threads == 2
    assert [(spec.name, spec.shape, spec.dtype) for spec in session.inputs] == [("image", (3, 8, 8), "float32")]
    assert [(spec.name, spec.shape) for spec in session.outputs] == [("logits", (3,))]


def test_a_bound_run_computes_the_same(artifact: Artifact) -> None:
    session = find_runtime("onnxruntime").load(artifact.path, SessionSettings())
    feed = [session.inputs[0].random(2, 0)]
    (bound,) = session.bind(feed)()  # type: ignore[misc]
    np.testing.assert_array_equal(bound, session.run(feed)[0])


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ([], r"takes 1 inputs \(image\), got 0"),
        ([np.zeros((1, 3, 8, 8))], r"float32, got \(1, 3, 8, 8\) float64"),
        ([np.zeros((3, 8, 8), np.float32)], r"got \(3, 8, 8\) float32"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(artifact: Artifact, feed: list[np.ndarray], message: str) -> None:
    session = find_runtime("onnxruntime").load(artifact.path, SessionSettings())
    for action in (session.run, session.bind):
        with pytest.raises(DataError, match=message):
            action(feed)


@pytest.mark.parametrize("content", [b"", b"garbage" * 50])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"cannot load 'bad\.onnx'"):
        find_runtime("onnxruntime").load(path, SessionSettings())
    assert capfd.readouterr() == ("", "")


def test_random_inputs_are_reproducible_and_normal(artifact: Artifact) -> None:
    spec = artifact.inputs[0]
    values = spec.random(64, 3)
    np.testing.assert_array_equal(values, spec.random(64, 3))
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05
    assert torch.from_numpy(values).dtype == torch.float32
