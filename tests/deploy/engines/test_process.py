from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deploy.artifact import Artifact, hash_model
from deploy.engines.metadata import read_engine
from deploy.engines.place import engine_folder
from deploy.engines.process import build
from deploy.engines.settings import Batches, BuildSettings
from deploy.errors import (
    DeployError,
    DeviceMemoryError,
    DeviceMissingError,
    EngineBuildError,
    EngineCancelledError,
    EngineOperatorError,
    ModelFileError,
)
from deploy.gpu import list_gpus
from tests.deploy.gpus import needs_gpu, needs_tensorrt

Program = Callable[[str], None]
PID = "pathlib.Path({!r}).write_text(str(os.getpid()))"
ANSWER = {
    "tensorrt": "10.3.0",
    "cuda": "12.6",
    "driver": None,
    "gpu": "Orin",
    "compute_capability": "8.7",
    "shares_memory": True,
    "batches": {"smallest": 1, "best": 1, "largest": 8},
    "workspace_bytes": 1 << 28,
    "optimization_level": 3,
    "engine_sha256": hashlib.sha256(b"engine").hexdigest(),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts another program in the builder's place, so that every way in which a program can end is tried."""

    def replace(code: str) -> None:
        path = tmp_path / "program.py"
        path.write_text(f"import json, os, pathlib, signal, sys, time\nplace = pathlib.Path(sys.argv[1])\n{code}\n")
        monkeypatch.setattr("deploy.engines.process.COMMAND", (sys.executable, str(path)))

    return replace


def test_an_engine_comes_with_sealed_metadata(artifact: Artifact, builder: Program, tmp_path: Path) -> None:
    answer = json.dumps({"metadata": ANSWER})
    builder(f"(place / 'engine').write_bytes(b'engine'); (place / 'answer').write_text({answer!r})")
    out = tmp_path / "out" / "net.engine"
    metadata = build(artifact.path, out, BuildSettings())
    assert metadata.onnx_sha256 == hash_model(artifact.path)[0]
    assert metadata.batches == Batches(1, 1, 8)
    assert read_engine(out, engine_folder()) == (b"engine", metadata)
    assert sorted(path.name for path in out.parent.iterdir()) == ["net.engine", "net.engine.json"]


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", DeviceMemoryError, "was killed"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", EngineBuildError, "SIGSEGV"),
        ("print('no such thing', file=sys.stderr); sys.exit(3)", EngineBuildError, "status 3 .*no such thing"),
        ("(place / 'answer').write_text('{')", EngineBuildError, "no answer"),
    ],
)
def test_a_builder_that_dies_is_told_and_takes_nobody_along(
    code: str, kind: type[DeployError], message: str, artifact: Artifact, builder: Program, tmp_path: Path
) -> None:
    builder(code)
    with pytest.raises(kind, match=message):
        build(artifact.path, tmp_path / "out" / "net.engine", BuildSettings())
    assert not list((tmp_path / "out").iterdir())


def test_an_unknown_operator_comes_back_with_its_node(artifact: Artifact, builder: Program, tmp_path: Path) -> None:
    error = {"kind": "EngineOperatorError", "message": "m", "operator": "Foo", "node": "/a/Foo"}
    builder(f"(place / 'answer').write_text({json.dumps({'error': error})!r})")
    with pytest.raises(EngineOperatorError) as caught:
        build(artifact.path, tmp_path / "out" / "net.engine", BuildSettings())
    assert (caught.value.operator, caught.value.node) == ("Foo", "/a/Foo")


def test_a_builder_that_hangs_is_killed_when_its_time_is_over(
    artifact: Artifact, builder: Program, tmp_path: Path
) -> None:
    builder(f"{PID.format(str(tmp_path / 'pid'))}; time.sleep(60)")
    with pytest.raises(EngineBuildError, match="not done after 2 s"):
        build(artifact.path, tmp_path / "out" / "net.engine", BuildSettings(timeout_seconds=2.0))
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_build_can_be_cancelled(artifact: Artifact, builder: Program, tmp_path: Path) -> None:
    builder(f"{PID.format(str(tmp_path / 'pid'))}; time.sleep(60)")
    cancel = threading.Event()
    threading.Timer(2.0, cancel.set).start()
    with pytest.raises(EngineCancelledError):
        build(artifact.path, tmp_path / "out" / "net.engine", BuildSettings(), cancel)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(bool(list_gpus()), reason="there is a GPU here")
def test_the_real_builder_says_that_there_is_no_gpu(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(DeviceMissingError, match="no device 'cuda:0' on this machine; there are: cpu"):
        build(artifact.path, tmp_path / "out" / "net.engine", BuildSettings())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.onnx"):
        build(tmp_path / "none.onnx", tmp_path / "out" / "net.engine", BuildSettings())


@needs_gpu
@needs_tensorrt
def test_a_real_engine_is_built_and_the_second_one_finds_the_timing_cache(artifact: Artifact, tmp_path: Path) -> None:
    settings = BuildSettings(timing_cache=engine_folder())
    for name in ("one.engine", "two.engine"):
        metadata = build(artifact.path, tmp_path / "out" / name, settings)
        assert metadata.gpu == list_gpus()[0].name
    assert len(list(engine_folder().glob("timing-*.cache"))) == 1
