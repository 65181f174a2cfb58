"""The server that a command starts when none is named."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.cli.command import environment, shoal


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    for pid in _servers(folder):  # only what a failed test left behind
        os.kill(pid, signal.SIGKILL)


def _servers(state: Path) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"serve" in words and str(state).encode() in words:
            found.append(int(entry.parent.name))
    return found


def test_it_starts_answers_and_stops(state: Path) -> None:
    done = shoal("jobs", "list", "--json", "--state-dir", state)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, [], "")
    assert _servers(state) == []


def test_its_state_folder_is_private(state: Path) -> None:
    shoal("jobs", "list", SHOAL_STATE_DIR=str(state))
    assert state.stat().st_mode & 0o777 == 0o700


def test_the_state_folder_is_the_users_by_default(tmp_path: Path) -> None:
    shoal("jobs", "list", HOME=str(tmp_path), XDG_DATA_HOME=str(tmp_path / "share"))
    assert (tmp_path / "share/shoal/shoal.db").exists()
    assert _servers(tmp_path / "share/shoal") == []


def test_commands_at_the_same_time_share_one(state: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "jobs", "list", "--json", "--state-dir", str(state)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        for _ in range(3)
    ]
    for process in running:
        stdout, stderr = process.communicate(timeout=60)
        assert (process.returncode, stdout.strip()) == (0, "[]"), stderr


def test_a_server_that_runs_on_the_state_folder_is_used_and_left_running(state: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--address", "127.0.0.1:0", "--state-dir", str(state)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as server:
        assert server.stderr is not None
        while "serving on" not in server.stderr.readline():
            assert server.poll() is None
        assert shoal("jobs", "list", "--json", "--state-dir", state).returncode == 0
        assert _servers(state) == [server.pid]
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


def test_it_stops_when_its_command_is_killed(state: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from service.cli.embedded import running\n"
        "with running(Path(sys.argv[1]), print) as address:\n"
        "    print(address, flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "starting a server on this machine\n"
        assert re.fullmatch(r"127\.0\.0\.1:\d+\n", process.stdout.readline())
        (server,) = _servers(state)
        process.kill()
    deadline = time.monotonic() + 20
    while _servers(state) == [server]:
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.1)


def test_a_server_that_cannot_start_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/shoal.db").write_bytes(b"this is no database, whatever else it may be" * 100)
    done = shoal("jobs", "list", "--state-dir", tmp_path / "state")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"shoal: error: the server on this machine did not start: .*\(see .*server\.log\)\n", done.stderr
    )


def test_a_second_server_on_the_state_folder_is_refused(state: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "serve", "--address", "127.0.0.1:0", "--state-dir", str(state)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as first:
        assert first.stderr is not None
        while "serving on" not in first.stderr.readline():
            assert first.poll() is None
        done = shoal("serve", "--address", "127.0.0.1:0", "--state-dir", state)
        first.terminate()
        first.wait(20)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("shoal: error: another server uses the state folder")
