from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.cli.command import shoal_here
from tests.service.server_process import ServerProcess


def test_a_server_that_takes_calls_is_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ServerProcess(tmp_path) as server:
        done = shoal_here(capsys, "health", "--server", server.address)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")


def test_where_nobody_listens_nobody_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    done = shoal_here(capsys, "health", "--server", "127.0.0.1:1", "--timeout", "1")
    assert done.returncode == 1
    assert "127.0.0.1:1 does not answer: UNAVAILABLE" in done.stderr
