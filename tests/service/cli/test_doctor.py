from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.doctor import text
from service.doctor.finding import Finding, Level
from tests.service.cli.command import environment, shoal_here


def test_findings_are_told_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = shoal_here(capsys, "doctor", "--json", "--state-dir", tmp_path)
    told = json.loads(done.stdout)

    areas = {one["area"] for one in told["findings"]}
    places = {"database", "storage", "machine", "clock", "timing", "sandbox"}
    assert areas == {"packages", "traces", "runtimes", "gpu"} | places
    assert set(told["findings"][0]) == {"area", "name", "level", "found", "meaning", "advice"}
    assert (done.returncode == 0) == told["healthy"] == all(one["level"] != "fail" for one in told["findings"])
    assert not list(tmp_path.iterdir())


def test_a_failure_is_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = shoal_here(capsys, "doctor", "--state-dir", tmp_path, "--server", "127.0.0.1:1")

    assert done.returncode == 1
    assert "fail  server: 127.0.0.1:1: no answer: UNAVAILABLE" in done.stdout
    assert "-> start it with `shoal serve`" in done.stdout


def test_a_machine_that_lacks_everything_is_described_all_the_same(tmp_path: Path) -> None:
    missing = ["torch", "numpy", "onnx", "onnxruntime", "openvino", "sqlalchemy", "fsspec", "psutil", "platformdirs"]
    missing += ["grpc_health", "timm"]
    program = (
        f"import sys\nfor name in {missing}: sys.modules[name] = None\n"
        "from service.cli.app import run\nsys.exit(run(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "doctor", "--json", "--server", "127.0.0.1:1"]
    command += ["--state-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment())
    found = {one["name"]: one for one in json.loads(done.stdout)["findings"]}

    assert (done.returncode, done.stderr) == (0, "")
    for name in ("runtimes", "database", "store", "127.0.0.1:1"):
        assert (found[name]["level"], found[name]["advice"]) == ("warn", "install shoal[server]")


def test_findings_are_told_to_people_with_a_sum() -> None:
    found = [
        Finding("gpu", "driver", Level.OK, "some"),
        Finding("clock", "noise", Level.WARN, "uneven", "intervals will be wide", "stop other programs"),
    ]

    assert text(found).splitlines() == [
        "ok    gpu: driver: some",
        "warn  clock: noise: uneven",
        "        intervals will be wide",
        "        -> stop other programs",
        "1 ok, 1 warn, 0 fail",
    ]
