"""What a worker that does as it likes can do: real worker processes under a real server."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.sandbox import probe
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from tests.service.server_harness import finished, follow, running, settings_for, start_job, upload, worker_command

MISSING = [f"{one.name}: {one.missing}" for one in probe() if not one.present]
confined = pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING))

State = job_pb.OptimizationJob.State

# What is the job's, and stays possible.
OWN = {"own file", "own folder", "shared cache"}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder that is nobody's business, with a secret, a port and sockets that somebody listens at."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("secret", "doomed"):
        (folder / name).write_text("secret")
    with (
        socket.socket() as door,
        socket.socket(socket.AF_UNIX) as local,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as letters,
    ):
        door.bind(("127.0.0.1", 0))
        local.bind(str(folder / "door"))
        letters.bind(str(folder / "letters"))
        door.listen()
        local.listen()
        (folder / "port").write_text(str(door.getsockname()[1]))
        yield folder


async def attack(tmp_path: Path, *command: str, **changes: Any) -> tuple[dict[str, int], job_pb.OptimizationJob]:
    """What each attempt came to, and the job's end."""
    settings = settings_for(tmp_path, worker_command=worker_command(*command), **changes)
    async with running(settings) as stub:
        await upload(stub, b"somebody's model", upload_id="of-somebody")
        events = await follow(stub, (await start_job(stub)).name)
    found: dict[str, int] = {}
    for event in events:
        for snapshot in (event.snapshot,):
            found |= {name: int(value) for name, value in snapshot.progress.metrics.items()}
        found |= {name: int(value) for name, value in event.progress.metrics.items()}
    return found, events[-1].snapshot


@confined
async def test_a_worker_reaches_nothing_but_its_own(tmp_path: Path, outside: Path) -> None:
    found, job = await attack(tmp_path, "hostile", str(outside), sandbox="required")

    assert {name for name, error in found.items() if not error} == OWN
    assert set(found.values()) <= {0, errno.EACCES, errno.EPERM, errno.EXDEV}
    assert (outside / "doomed").exists()
    assert not (outside / "new").exists()
    assert (job.state, job.error.reason) == (State.STATE_FAILED, "WORKER_DIED")


async def test_without_a_sandbox_the_same_attempts_succeed(tmp_path: Path, outside: Path) -> None:
    found, _ = await attack(tmp_path, "hostile", str(outside), sandbox="off")

    # The system itself may forbid some of it, e.g. to users other than root.
    by_the_system = {"new user namespace", "ring", "trace of the server", "memory of the server, by a call", "IPv6"}
    assert {name for name, error in found.items() if error} <= by_the_system
    assert len(found) > 25


@confined
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only x86_64 has a second interface")
async def test_calls_of_another_interface_end_the_worker(tmp_path: Path, outside: Path) -> None:
    _, job = await attack(tmp_path, "hostile", str(outside), "x32")

    assert job.error.reason == "WORKER_DIED"
    assert "SIGSYS" in job.error.message


@pytest.mark.parametrize(
    ("kind", "changes", "reason", "words"),
    [
        ("memory", {"worker_memory_bytes": 200 << 20}, "WORKER_MEMORY", "0.20 GiB"),
        ("forks", {"worker_processes": 20}, "WORKER_PROCESSES", "more than 20 processes"),
        ("file", {"worker_file_bytes": 4 << 20}, "WORKER_DIED", "status 1"),
    ],
)
async def test_a_bomb_ends_its_own_job(
    tmp_path: Path, kind: str, changes: dict[str, int], reason: str, words: str
) -> None:
    before = {process.pid for process in psutil.process_iter()}
    async with running(settings_for(tmp_path, worker_command=worker_command("bomb", kind), **changes)) as stub:
        job = await finished(stub, (await start_job(stub)).name)

    assert (job.state, job.error.reason) == (State.STATE_FAILED, reason)
    assert words in job.error.message
    mine = str(WORKER_FOLDER)
    left = [one for one in psutil.process_iter() if one.pid not in before and mine in " ".join(_command(one))]
    assert not [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


WORKER_FOLDER = Path(__file__).parents[1] / "workers" / "bomb.py"


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
