"""`shoal verify` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.report.schema import Report
from tests.service.cli.command import environment, shoal_here
from tests.service.delivery.made import NOWHERE, claim, deliver, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return deliver(tmp_path / "out")


def test_each_check_is_a_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = shoal_here(capsys, "verify", folder)
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[-1]) == (0, "every check passed.")
    assert all(line.startswith("ok ") for line in lines[:-2])


def test_a_failed_check_says_what_got_and_wanted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "plan.json").write_text("{} ")
    (folder / "\x1b[2J").write_text("")
    done = shoal_here(capsys, "verify", folder)
    assert done.returncode == 1
    assert "failed  file      plan.json has another size: got 3 bytes, wanted 2 bytes" in done.stdout
    assert "failed  file      ?[2J is not in the manifest: got a file, wanted nothing" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 of ")


def test_json_has_every_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "plan.json").unlink()
    done = shoal_here(capsys, "verify", folder, "--latency", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["passed"]) == (1, False)
    assert [check["subject"] for check in document["checks"] if check["status"] == "failed"] == ["plan.json"]
    assert document["checks"][-1]["name"] == "latency"
    assert document["checks"][-1]["status"] == "skipped"


def test_figures_are_taken_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report.model_validate_json((folder / "report.json").read_bytes())
    wide = report.speedup.model_copy(update={"low": 0.01, "high": 1000.0})
    assert report.result.accuracy is not None
    half = report.result.accuracy.model_copy(update={"top1": 0.5, "low": 0.3, "high": 0.7, "count": 20})
    claims = {"speedup": wide, "result": report.result.model_copy(update={"accuracy": half})}
    (folder / "report.json").write_text(report.model_copy(update=claims).model_dump_json())
    write_manifest(folder)
    labels = np.arange(9) % 3
    np.savez(
        tmp_path / "data.npz",
        images=np.eye(3, dtype=np.float32)[labels][:, :, None, None] + np.zeros((8, 8), np.float32),
        labels=labels,
    )
    (tmp_path / "raw.json").write_text('{"raw": true}')
    flags = ("--latency", "--seconds", "0.3", "--data", tmp_path / "data.npz", "--preprocess", tmp_path / "raw.json")
    done = shoal_here(capsys, "verify", folder, *flags)
    assert "ok      latency   speed-up " in done.stdout, done.stderr
    assert "failed  accuracy  top-1 is another: got 100.00% " in done.stdout


@pytest.mark.parametrize("runtime", ["onnxruntime", "onnxruntime-tensorrt", "tensorrt"])
def test_figures_of_a_device_that_is_not_here_are_passed_over(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], runtime: str
) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((3, 3, 8, 8), np.float32), labels=np.arange(3))
    (tmp_path / "raw.json").write_text('{"raw": true}')
    flags = ("--latency", "--seconds", "0.1", "--data", tmp_path / "data.npz", "--preprocess", tmp_path / "raw.json")
    done = shoal_here(capsys, "verify", claim(folder, runtime, NOWHERE), *flags, "--json")
    assert done.returncode == 0, done.stdout
    late = json.loads(done.stdout)["checks"][-2:]
    assert [(check["name"], check["status"]) for check in late] == [("latency", "skipped"), ("accuracy", "skipped")]
    assert all(check["message"].startswith("was not taken again: ") for check in late)


def test_what_cannot_be_checked_exits_with_2(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ((tmp_path / "nowhere",), "nowhere is no folder"),
        ((folder / "model.onnx",), "model.onnx is no folder"),
        ((folder, "--seconds", "1"), "--seconds says how long --latency times"),
        ((folder, "--data", tmp_path / "nowhere"), "nowhere does not exist"),
    ):
        done = shoal_here(capsys, "verify", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stdout
        assert message in done.stderr


def without(folder: Path, *banned: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process that cannot import some modules."""
    program = f"import sys; sys.modules.update(dict.fromkeys({banned!r})); from service.cli.app import run; "
    program += f"sys.exit(run({['verify', str(folder), *flags]!r}))"
    return subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60, env=environment()
    )


def test_it_needs_neither_torch_nor_a_server(folder: Path) -> None:
    banned = ("torch", "grpc", "sqlalchemy", "compressors", "jinja2", "PIL")
    done = without(folder, *banned, flags=("--latency", "--seconds", "0.1"))
    assert "ok      run       batch 3" in done.stdout, done.stderr
    assert "latency   speed-up" in done.stdout


def test_what_it_does_need_is_named(folder: Path) -> None:
    done = without(folder, "onnx")
    assert done.returncode == 1
    assert "failed  model     model.onnx cannot be opened: onnx is not installed" in done.stdout
    assert without(folder, "numpy").stderr.startswith("shoal: error: checking needs numpy: pip install numpy")
