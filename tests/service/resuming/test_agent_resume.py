"""A whole job on an agent's device, server and agent in network namespaces of their own, both killed over and over."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.pipeline.phases import SHARES
from service.settings import ServerSettings
from tests.service.callers import make_tokens, speaking
from tests.service.resuming.test_resume import outcome, settings, shipped, start, write_inputs
from tests.service.server.test_agents import known
from tests.service.server.test_restart import ROOT, served
from tests.service.server_process import free_port

KINDS = ("run", "describe", "time", "edges")
SPACE = f"shoal-{os.getpid()}"


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def far() -> Iterator[tuple[list[str], str]]:
    """A network namespace with a way to this one: how to run a command in there, and this side's address."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    here, there = f"sh{os.getpid() % 10_000}a", f"sh{os.getpid() % 10_000}b"
    ip("netns", "add", SPACE)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", SPACE)
        ip("addr", "add", "10.231.77.1/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", SPACE, "addr", "add", "10.231.77.2/30", "dev", there)
        ip("-n", SPACE, "link", "set", there, "up")
        yield ["ip", "netns", "exec", SPACE], "10.231.77.1"
    finally:
        ip("netns", "del", SPACE)


class Mortal:
    """An agent that is killed at the beginning and at the end of the first piece of work of each kind."""

    def __init__(self, command: list[str], deaths: set[str]) -> None:
        self._command, self._deaths = command, deaths
        self._over = threading.Event()
        self.killed: list[str] = []
        self.done: list[str] = []
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True, env=environment)
            with self._process as process:
                assert process.stderr is not None
                for line in process.stderr:
                    self.lines.append(line)
                    self._hear(line, process)

    def _hear(self, line: str, process: subprocess.Popen[str]) -> None:
        kind = line.partition(":")[0]
        if kind not in KINDS:
            return
        moment = f"{kind} done" if ": done" in line else f"{kind} begun"
        if ": done" in line:
            self.done.append(kind)
        if moment in self._deaths:
            self._deaths.discard(moment)
            self.killed.append(moment)
            process.kill()

    def end(self) -> None:
        self._over.set()
        if self._process is not None:
            self._process.kill()
        self._thread.join(timeout=20)


@contextmanager
def mortal(address: str, token: str, folder: Path, how: list[str], deaths: set[str]) -> Iterator[Mortal]:
    folder.mkdir()
    (folder / "token").write_text(token)
    command = [
        *how,
        sys.executable,
        "-m",
        "service.cli",
        "agent",
        "--server",
        address,
        "--cool-below",
        "0",
        "--insecure",
    ]
    command += ["--token-file", str(folder / "token"), "--state-dir", str(folder)]
    agent = Mortal(command, deaths)
    try:
        yield agent
    finally:
        agent.end()


def sockets(how: list[str]) -> str:
    """What listens where the agent is."""
    return subprocess.run([*how, "ss", "-Hltn"], check=True, capture_output=True, text=True).stdout


async def heard(agent: Mortal) -> None:
    """Waits until the agent has registered."""
    for _ in range(600):
        if any(line.startswith("agent/edge at") for line in agent.lines):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(agent.lines)


def at(address: str, folder: Path, *phases: str) -> ServerSettings:
    """A server at an address that is killed at the beginning of phases."""
    folder.mkdir(exist_ok=True)
    changes = {"address": address, "insecure_remote": True, "data_roots": (folder.parent,)}
    return settings(folder, "server", *phases).model_copy(update=changes)


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_with_server_and_agent_killed_everywhere_it_ends_with_the_same_bytes(
    far: tuple[list[str], str], tmp_path: Path
) -> None:
    how, host = far
    model = write_inputs(tmp_path / "data", depth=6)
    data = tmp_path / "data/train.npz"
    calm = at(f"{host}:{free_port()}", tmp_path / "calm")
    (owner,) = make_tokens(calm, "owner")
    with mortal(calm.address, known(calm), tmp_path / "calm-agent", how, set()) as agent:
        async with served(calm) as (stub, _):
            await heard(agent)
            name = await start(speaking(stub, owner), model, data, "agent/edge")
            whole, planned = await outcome(speaking(stub, owner), name)
        listening = await asyncio.to_thread(sockets, how)
    pieces = len(agent.done)

    rough = at(f"{host}:{free_port()}", tmp_path / "rough", *SHARES)
    (owner,) = make_tokens(rough, "owner")
    deaths = {f"{kind} {moment}" for kind in KINDS for moment in ("begun", "done")}
    name = ""
    with mortal(rough.address, known(rough), tmp_path / "rough-agent", how, deaths) as agent:
        for _ in SHARES:
            async with served(rough) as (stub, server):
                await heard(agent)
                name = name or await start(speaking(stub, owner), model, data, "agent/edge")
                assert await asyncio.to_thread(server.wait, 300) == -9
        async with served(rough) as (stub, _):
            job, plan = await outcome(speaking(stub, owner), name)

    assert listening == ""  # nothing there can be reached
    assert sorted(agent.killed) == sorted(f"{kind} {moment}" for kind in KINDS for moment in ("begun", "done"))
    assert job.attempts == 1 + len(SHARES)
    assert plan["steps"] == planned["steps"]
    assert shipped(job) == shipped(whole)
    assert job.result.outcome == whole.result.outcome
    # What an agent had finished before it or the server died was not done again.
    assert len(agent.done) <= pieces + len(SHARES)
