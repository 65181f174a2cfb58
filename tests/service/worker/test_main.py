from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import service
from service.spec import JobSpec
from service.worker.main import Channel, without_paths
from service.worker.messages import EVENT_ADAPTER, ErrorEvent, WorkOrder

ROOT = str(Path(service.__file__).parents[1])


def order_in(folder: Path) -> WorkOrder:
    return WorkOrder(
        job="optimizationJobs/some",
        task="optimize",
        spec=JobSpec.model_validate({"model": {"pt2_artifact": "artifacts/some"}, "budget": {"fraction": 0.5}}),
        folder=folder,
        cache_folder=folder,
        deadline_seconds=10,
    )


def run(tmp_path: Path, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-m", "service.worker"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": ROOT}
    return subprocess.run(
        command, input=stdin, capture_output=True, cwd=tmp_path, env=environment, timeout=60, check=False
    )


def test_a_worker_without_an_order_ends(tmp_path: Path) -> None:
    ended = run(tmp_path, b"")

    assert (ended.returncode, ended.stdout) == (1, b"")


def test_an_orphan_ends(tmp_path: Path) -> None:
    order = order_in(tmp_path).model_copy(update={"server_pid": 1})
    ended = run(tmp_path, order.model_dump_json().encode() + b"\n")

    assert (ended.returncode, ended.stdout) == (1, b"")
    assert not list(tmp_path.iterdir())


def test_callers_see_their_own_names_and_no_paths(tmp_path: Path) -> None:
    order = order_in(tmp_path).model_copy(update={"files": {"artifacts/some": tmp_path / "in/abc/net.pt2"}})
    message = f"{tmp_path}/in/abc/net.pt2 is torn; so is {tmp_path}/out/baseline.onnx"
    event = ErrorEvent(reason="BAD_MODEL", message=message, blame="caller")

    assert without_paths(event, order).message == "artifacts/some is torn; so is out/baseline.onnx"


def test_progress_is_made_fit_for_the_wire() -> None:
    stream = io.BytesIO()
    Channel(stream).progress("tune", 1.0000001, "x" * 5000, {"loss": float("nan"), "accuracy": 1})
    line = stream.getvalue()
    event = EVENT_ADAPTER.validate_json(line)

    assert line.endswith(b"\n")
    assert json.loads(line)["metrics"] == {"accuracy": 1.0}
    assert (event.type, event.fraction, len(event.message)) == ("progress", 1.0, 2000)
