from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from deploy.artifact import Artifact
from deploy.errors import DataError, MeasureCancelledError, MeasureError, ModelFileError, RuntimeMissingError
from deploy.gpu import GpuState
from deploy.jetson import JetsonState
from deploy.machine import describe_device, read_clock_state, read_device
from deploy.measure.report import compare
from deploy.measure.settings import MIN_ROUNDS, TimingSettings
from deploy.measure.several import time_in_fresh_processes
from deploy.measure.whole import _state, measure
from deploy.remeasure import remeasure
from tests.deploy.gpus import SERVER
from tests.deploy.measure.timers import children, needs_proc, wait_for_worker, workers

QUICK = TimingSettings(
    min_seconds=0.1, max_seconds=2.0, min_samples=20, warmup_seconds=0.1, block_seconds=0.002, processes=1
)
LONG = TimingSettings(min_seconds=60, max_seconds=60, processes=1)


def test_files_are_measured_interleaved(artifact: Artifact, heavy: Path) -> None:
    light, slow = measure([artifact.path, heavy], QUICK)
    assert (light.file, slow.file) == ("residual.onnx", "heavy.onnx")
    assert light.sha256 == artifact.sha256
    assert light.session == slow.session
    assert len(light.rounds) == len(slow.rounds) >= MIN_ROUNDS
    assert light.distribution.n == sum(map(len, light.rounds)) >= 20
    assert len(light.samples) <= 400
    assert light.seconds == light.distribution.p50
    assert light.settings == QUICK
    assert light.runtime.providers == ("CPUExecutionProvider",)
    assert light.device.model
    assert light.conditions.after.monotonic_seconds > light.conditions.before.monotonic_seconds
    assert all(state.available_memory_bytes for state in (light.conditions.before, light.conditions.after))
    ratio = compare(slow, light)
    assert ratio.is_faster
    assert ratio.speedup > 10


def test_two_measurements_are_two_sessions(artifact: Artifact) -> None:
    (first,), (second,) = measure([artifact.path], QUICK), measure([artifact.path], QUICK)
    with pytest.raises(MeasureError, match="not timed interleaved"):
        compare(first, second)


def test_the_batch_size_is_what_is_run(heavy: Path) -> None:
    from dataclasses import replace

    (one,) = measure([heavy], QUICK)
    (eight,) = measure([heavy], replace(QUICK, batch=8))
    assert eight.seconds > 3 * one.seconds


def test_a_file_is_measured_again_alone_and_against_a_baseline(artifact: Artifact, heavy: Path) -> None:
    alone = remeasure(artifact.path, settings=QUICK)
    assert alone.baseline is None
    assert alone.ratio is None
    pair = remeasure(artifact.path, heavy, QUICK)
    assert pair.baseline is not None
    assert pair.ratio is not None
    assert (pair.candidate.file, pair.baseline.file) == ("residual.onnx", "heavy.onnx")
    assert pair.ratio.speedup > 10


def test_garbage_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"garbage" * 100)
    with pytest.raises(ModelFileError, match=r"cannot load 'bad\.onnx'"):
        measure([artifact.path, bad], QUICK)
    with pytest.raises(ModelFileError, match=r"'bad\.onnx' is not an ONNX"):
        remeasure(bad, settings=QUICK)


def test_a_free_dimension_besides_the_batch_is_refused(tmp_path: Path) -> None:
    shape = ("batch", "length")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    path = tmp_path / "free.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with pytest.raises(DataError, match=r"input 'x' has a free dimension besides the batch, \(None,\)"):
        measure([path], QUICK)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        measure([tmp_path / "gone.onnx"], QUICK)
    with pytest.raises(ModelFileError, match="no model file to measure"):
        measure([], QUICK)


def test_an_unknown_runtime_is_refused(artifact: Artifact) -> None:
    with pytest.raises(RuntimeMissingError, match="runtime 'tensorrt' cannot be used"):
        measure([artifact.path], TimingSettings(runtime="tensorrt"))


@needs_proc
def test_a_killed_timing_process_is_told(artifact: Artifact) -> None:
    import os
    import signal

    before = children()
    caught: list[BaseException] = []

    def run() -> None:
        try:
            measure([artifact.path], LONG)
        except MeasureError as exc:
            caught.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    os.kill(wait_for_worker(before), signal.SIGKILL)
    thread.join(10)
    assert "died from signal SIGKILL" in str(caught[0])


@needs_proc
def test_cancelling_kills_the_timing_process_at_once(artifact: Artifact) -> None:
    before = children()
    cancel = threading.Event()
    threading.Timer(1.0, cancel.set).start()
    start = time.monotonic()
    with pytest.raises(MeasureCancelledError):
        measure([artifact.path], LONG, cancel)
    assert time.monotonic() - start < 10
    assert workers(before) == []


@needs_proc
def test_a_timing_process_that_takes_too_long_is_killed(artifact: Artifact) -> None:
    from dataclasses import replace

    before = children()
    with pytest.raises(MeasureError, match="no answer within 1 s and was killed"):
        measure([artifact.path], replace(LONG, timeout_seconds=1.0))
    assert workers(before) == []


@needs_proc
def test_the_timing_process_dies_with_its_caller(artifact: Artifact) -> None:
    import signal
    import subprocess

    code = (
        "from pathlib import Path; from deploy.measure.whole import measure\n"
        "from deploy.measure.settings import TimingSettings\n"
        f"measure([Path({str(artifact.path)!r})], TimingSettings(min_seconds=60, max_seconds=60, processes=1))\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    try:
        child = Path(f"/proc/{caller.pid}/task/{caller.pid}/children")
        deadline = time.monotonic() + 30
        while not (worker := child.read_text().split()) and time.monotonic() < deadline:
            time.sleep(0.05)
        # It must have read its request before its caller dies: before that, the end of input ends it anyway.
        time.sleep(1.0)
        assert Path(f"/proc/{worker[0]}").exists()
    finally:
        caller.send_signal(signal.SIGKILL)
        caller.wait()
    deadline = time.monotonic() + 10
    while is_running(int(worker[0])) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(int(worker[0]))


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def test_what_is_known_of_a_gpu_comes_through_the_process_boundary() -> None:
    device = replace(describe_device(), gpu=SERVER)
    state = replace(
        read_clock_state(),
        gpu=GpuState(1980.0, throttled=("software power cap",), available_memory_bytes=1 << 33),
        jetson=JetsonState("MAXN", None, None),
    )
    assert read_device(json.loads(json.dumps(asdict(device)))) == device
    assert _state(json.loads(json.dumps(asdict(state)))) == state


def test_a_timing_process_that_cannot_start_says_why(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho \"No module named 'deploy'\" >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("deploy.measure.process._COMMAND", (str(broken),))
    with pytest.raises(MeasureError, match=r"ended with status 1 and no answer: .*No module named 'deploy"):
        time_in_fresh_processes([artifact.path], QUICK)


def test_the_timing_process_imports_no_torch() -> None:
    import subprocess

    code = "import sys, deploy.measure.worker, deploy.evaluate, deploy.measure.whole; print('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "False"


def test_what_a_newer_agent_tells_besides_is_passed_over() -> None:
    state = replace(read_clock_state(), gpu=GpuState(1980.0), jetson=JetsonState("MAXN", None, None))
    told = json.loads(json.dumps(asdict(state)))
    for values in (told, told["gpu"], told["jetson"]):
        values["invented_later"] = 1
    assert _state(told) == state
