"""`shoal agents` on the server's machine, and `shoal agent` on a device, as processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.service.cli.command import shoal
from tests.service.server_process import ServerProcess


def test_an_agent_is_made_known_listed_and_forgotten(tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    made = json.loads(shoal("agents", "add", "edge", "--json", *state).stdout)
    again = shoal("agents", "add", "edge", *state)
    listed = shoal("agents", "list", *state)
    removed = shoal("agents", "remove", "edge", *state)
    nothing = shoal("agents", "list", *state)

    assert made["device"] == "agent/edge"
    assert made["token"].startswith("shoal-agent-")
    assert again.returncode == 1
    assert "there is an agent 'edge' already" in again.stderr
    assert "agent/edge" in listed.stdout
    assert "offline" in listed.stdout
    assert made["token"] not in listed.stdout
    assert removed.returncode == 0
    assert nothing.stdout == ""


def test_an_agent_without_a_token_says_where_to_get_one(tmp_path: Path) -> None:
    done = shoal("agent", "--server", "127.0.0.1:1")
    assert done.returncode == 2
    assert "`shoal agents add` makes one" in done.stderr


def test_an_agent_sends_no_token_in_plain_text_to_another_machine(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("shoal-agent-secret\n")
    done = shoal("agent", "--server", "192.0.2.1:50051", "--token-file", str(tmp_path / "token"))
    assert done.returncode == 2
    assert "the token could be read on its way to 192.0.2.1:50051; use TLS" in done.stderr


def test_an_agent_that_nobody_knows_is_turned_away(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("nobody\n")
    with ServerProcess(tmp_path / "state") as server:
        done = shoal(
            "agent", "--server", server.address, "--token-file", str(tmp_path / "token"), "--state-dir", str(tmp_path)
        )
    assert done.returncode == 1
    assert "no agent has this token" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_agent_works_until_it_is_told_to_stop(tmp_path: Path) -> None:
    token = shoal("agents", "add", "edge", "--state-dir", str(tmp_path / "state")).stdout
    (tmp_path / "token").write_text(token)
    with ServerProcess(tmp_path / "state") as server:
        command = [sys.executable, "-m", "service.cli", "agent", "--server", server.address]
        command += ["--token-file", str(tmp_path / "token"), "--state-dir", str(tmp_path / "agent")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as agent:
            assert agent.stderr is not None
            # gRPC may have a word of its own before.
            first = next(line for line in agent.stderr if line.startswith("agent/"))
            found = shoal("devices", "--server", server.address)
            agent.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert agent.wait(timeout=15) == 0
            rest = agent.stderr.read()

    assert first.startswith(f"agent/edge at {server.address}")
    assert "agent/edge  idle" in found.stdout
    assert "local/cpu" in found.stdout
    assert "stopped" in rest
    assert time.monotonic() - began < 15
