from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.cli.doctor import text
from service.doctor.finding import Finding, Level
from tests.service.cli.command import shoal_here


def test_findings_are_told_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = shoal_here(capsys, "doctor", "--json", "--state-dir", tmp_path)
    told = json.loads(done.stdout)

    areas = {one["area"] for one in told["findings"]}
    assert areas == {"packages", "traces", "runtimes", "gpu", "database", "storage", "machine", "clock", "timing"}
    assert set(told["findings"][0]) == {"area", "name", "level", "found", "meaning", "advice"}
    assert (done.returncode == 0) == told["healthy"] == all(one["level"] != "fail" for one in told["findings"])
    assert not list(tmp_path.iterdir())


def test_a_failure_is_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = shoal_here(capsys, "doctor", "--state-dir", tmp_path, "--server", "127.0.0.1:1")

    assert done.returncode == 1
    assert "fail  server: 127.0.0.1:1: no answer: UNAVAILABLE" in done.stdout
    assert "-> start it with `shoal serve`" in done.stdout


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
