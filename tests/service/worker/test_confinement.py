"""What a server makes of a machine that cannot confine its workers."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

import pytest

from deploy.errors import SandboxError
from deploy.sandbox import landlock
from service.server import create
from service.worker.confinement import check_sandbox
from service.worker.limits import family, machine_memory
from tests.service.server_harness import settings_for


@pytest.fixture
def old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)


@pytest.mark.usefixtures("old_kernel")
async def test_a_server_that_requires_what_is_missing_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"required.*this kernel has none"):
        await create(settings_for(tmp_path, sandbox="required")).start()
    assert not (tmp_path / "state").exists()


@pytest.mark.usefixtures("old_kernel")
def test_a_server_that_takes_what_there_is_says_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check_sandbox(settings_for(tmp_path))

    assert "lacks landlock" in caplog.text


def test_a_sandbox_that_is_off_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_sandbox(settings_for(tmp_path, sandbox="off"))

    assert "the sandbox is off" in caplog.text


def test_the_machine_has_memory() -> None:
    assert 1 << 28 < machine_memory() < 1 << 60


async def test_a_process_is_found_with_its_grandchildren() -> None:
    sleeper = "import time; time.sleep(60)"
    starts = f"one = subprocess.Popen([sys.executable, '-c', {sleeper!r}])"
    parent = f"import subprocess, sys; {starts}; print(one.pid, flush=True); one.wait()"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", parent, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        child = json.loads(await process.stdout.readline())
        assert list(family(process.pid)) == [process.pid, child]
    finally:
        for pid in list(family(process.pid))[1:]:
            os.kill(pid, signal.SIGKILL)
        await process.wait()
