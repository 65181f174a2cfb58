from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deploy.artifact import Artifact
from deploy.errors import EngineMisfitError
from deploy.layertimes import lay_times
from deploy.runtimes import SessionSettings, find_runtime
from deploy.runtimes.tensorrt_engine import split_batch
from tests.deploy.gpus import needs_gpu, needs_tensorrt


def test_a_missing_library_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['tensorrt'] = None\n"
        "from deploy.runtimes import find_runtime\n"
        "from deploy.errors import RuntimeMissingError\n"
        "try:\n    find_runtime('tensorrt', 'cuda:0').version()\n"
        "except RuntimeMissingError as exc:\n    print(exc)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert "pip install 'shoal[tensorrt]'" in done.stdout


@pytest.mark.parametrize(("count", "largest", "sizes"), [(5, 8, [5]), (8, 8, [8]), (17, 8, [8, 8, 1]), (3, 1, [1] * 3)])
def test_more_samples_than_an_engine_takes_go_in_pieces(count: int, largest: int, sizes: list[int]) -> None:
    inputs = [np.arange(count), np.arange(2 * count).reshape(count, 2)]
    pieces = split_batch(inputs, largest)
    assert [len(piece[0]) for piece in pieces] == sizes
    for index, value in enumerate(inputs):
        np.testing.assert_array_equal(np.concatenate([piece[index] for piece in pieces]), value)


@needs_gpu
@needs_tensorrt
@pytest.mark.parametrize("batch", [1, 3, 20])
def test_it_computes_what_the_processor_computes(
    batch: int, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    session = find_runtime("tensorrt", "cuda:0").load(artifact.path, SessionSettings(device="cuda:0", batch=4))
    feed = [session.inputs[0].random(batch, 0)]
    (wanted,) = find_runtime("onnxruntime").load(artifact.path, SessionSettings()).run(feed)
    np.testing.assert_allclose(session.run(feed)[0], wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@needs_gpu
@needs_tensorrt
def test_the_profile_tells_the_convolutions_of_the_file(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runtime, settings = find_runtime("tensorrt", "cuda:0"), SessionSettings(device="cuda:0", batch=4)
    found = runtime.profile(artifact.path, settings, [artifact.inputs[0].random(4, 0)], 5)
    assert found is not None
    assert sum(time.share for time in found) == pytest.approx(1.0)
    assert any(seconds is not None for seconds in lay_times(artifact.path, found).seconds)


@needs_gpu
@needs_tensorrt
def test_an_engine_of_unknown_origin_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "net.engine"
    path.write_bytes(b"\0" * 64)
    with pytest.raises(EngineMisfitError, match="nobody knows who built it"):
        find_runtime("tensorrt", "cuda:0").load(path, SessionSettings(device="cuda:0"))
