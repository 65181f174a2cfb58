from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

import service
from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.database.database import Database
from service.errors import ListenError, StateInUseError, StateVersionError
from service.jobs.job import NewJob
from service.jobs.store import JobStore
from service.server import create
from service.settings import ServerSettings
from service.spec import JobSpec
from tests.service.server_harness import (
    alive,
    finished,
    follow,
    gone,
    reached,
    running,
    settings_for,
    start_job,
    upload,
    worker_command,
)

State = job_pb.OptimizationJob.State
ROOT = Path(service.__file__).parents[1]
SERVE = Path(__file__).parents[1] / "serve_process.py"


@asynccontextmanager
async def served(settings: ServerSettings) -> AsyncIterator[tuple[ModelOptimizerStub, subprocess.Popen[str]]]:
    """A server in another process, which is killed at the end unless it is gone."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(SERVE), settings.model_dump_json()]
    with subprocess.Popen(  # noqa: ASYNC220 (starting it does not block)
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as server:
        try:
            assert server.stdout is not None
            address = await asyncio.to_thread(server.stdout.readline)
            async with grpc.aio.insecure_channel(address.strip()) as channel:
                yield ModelOptimizerStub(channel), server
        finally:
            server.kill()


async def queue(settings: ServerSettings, *ids: str) -> None:
    """Puts jobs into the queue of a server that is not running."""
    async with running(settings) as stub:
        artifact = await upload(stub, b"a model")
    spec = JobSpec.model_validate({"model": {"pt2_artifact": artifact.name}, "budget": {"fraction": 0.5}})
    database = Database(settings.database)
    for job_id in ids:
        JobStore(database).create(NewJob(spec, id=job_id), queue_limit=100)
    database.close()


def is_working(job: job_pb.OptimizationJob) -> bool:
    return job.progress.phase == "tune"


async def states(stub: ModelOptimizerStub) -> dict[str, int]:
    listed = await stub.ListOptimizationJobs(service_pb.ListOptimizationJobsRequest())
    return {job.name.rpartition("/")[2]: job.state for job in listed.optimization_jobs}


@pytest.mark.parametrize("module", ["service.server", "service.worker.main"])
def test_starting_up_waits_for_no_framework(module: str) -> None:
    listed = f"import sys, {module}; print([name for name in ('torch', 'numpy', 'onnxruntime') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", listed], capture_output=True, text=True, check=True, cwd=ROOT)

    assert found.stdout == "[]\n"


async def test_a_killed_server_loses_no_job(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as stub:
        done = await finished(stub, (await start_job(stub, optimization_job_id="done")).name)
    slow = settings_for(tmp_path, worker_command=worker_command("stubborn"), workers=2, cancel_grace=60)
    await queue(slow, "running", "cancelling", "queued", "cancelled")
    async with served(slow) as (stub, server):
        for name in ("running", "cancelling"):
            await reached(stub, f"optimizationJobs/{name}", is_working)
        for name in ("cancelling", "cancelled"):
            request = service_pb.CancelOptimizationJobRequest(name=f"optimizationJobs/{name}")
            await stub.CancelOptimizationJob(request)
        assert await states(stub) == {
            "done": State.STATE_SUCCEEDED,
            "running": State.STATE_RUNNING,
            "cancelling": State.STATE_CANCELLING,
            "queued": State.STATE_QUEUED,
            "cancelled": State.STATE_CANCELLED,
        }
        server.kill()
        await asyncio.to_thread(server.wait)
    async with running(settings_for(tmp_path)) as stub:
        for name in ("running", "queued"):
            await finished(stub, f"optimizationJobs/{name}")
        after = await states(stub)
        again = await finished(stub, "optimizationJobs/running")
        story = await follow(stub, "optimizationJobs/running")

    assert after == {
        "done": State.STATE_SUCCEEDED,
        "running": State.STATE_SUCCEEDED,
        "cancelling": State.STATE_CANCELLED,
        "queued": State.STATE_SUCCEEDED,
        "cancelled": State.STATE_CANCELLED,
    }
    assert again.attempts == 2
    assert [event.snapshot.state for event in story[1:] if event.HasField("snapshot")] == [
        State.STATE_QUEUED, State.STATE_RUNNING, State.STATE_QUEUED, State.STATE_RUNNING, State.STATE_SUCCEEDED,
    ]  # fmt: skip
    assert done.attempts == 1


async def test_workers_and_their_children_do_not_outlive_a_killed_server(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("stubborn"))
    await queue(settings, "some")
    async with served(settings) as (stub, server):
        name = "optimizationJobs/some"
        child = int((await reached(stub, name, is_working)).progress.metrics["child"])
        server.kill()
    assert alive(child)
    async with running(settings_for(tmp_path)):
        await gone(child)


async def test_a_job_that_kills_the_server_again_and_again_is_given_up(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"), max_attempts=2)
    name = "optimizationJobs/some"
    await queue(settings, "some")
    for attempt in (1, 2):
        async with served(settings) as (stub, server):
            # What the attempt before it had told is still there.
            await reached(stub, name, lambda job: is_working(job) and job.attempts == attempt)  # noqa: B023
            server.kill()
            await asyncio.to_thread(server.wait)
    async with running(settings) as stub:
        job = await finished(stub, name)

    assert (job.state, job.error.reason, job.attempts) == (State.STATE_FAILED, "WORKER_LOST", 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_is_asked_to_stop_requeues_its_jobs(tmp_path: Path, number: signal.Signals) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"))
    await queue(settings, "some")
    async with served(settings) as (stub, server):
        await reached(stub, "optimizationJobs/some", is_working)
        server.send_signal(number)
        assert await asyncio.to_thread(server.wait, 10) == 0
    with sqlite3.connect(tmp_path / "state/shoal.db") as database:
        assert database.execute("select state, losses from jobs").fetchall() == [("QUEUED", 0)]
    database.close()


async def test_a_stop_is_no_reason_to_give_a_job_up(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"), max_attempts=1)
    async with running(settings) as stub:
        name = (await start_job(stub)).name
        await reached(stub, name, is_working)
    async with running(settings_for(tmp_path, max_attempts=1)) as stub:
        job = await finished(stub, name)

    assert (job.state, job.attempts) == (State.STATE_SUCCEEDED, 2)


async def test_a_state_folder_has_one_server(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)):
        with pytest.raises(StateInUseError, match="another server uses the state folder"):
            await create(settings_for(tmp_path)).start()
    async with running(settings_for(tmp_path)):
        pass


async def test_a_port_has_one_server(tmp_path: Path) -> None:
    server = create(settings_for(tmp_path / "one"))
    port = await server.start()
    second = create(settings_for(tmp_path / "two", address=f"127.0.0.1:{port}"))
    with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}"):
        await second.start()
    await server.stop()


async def test_a_database_of_another_version_is_left_alone(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)):
        pass
    with sqlite3.connect(tmp_path / "state/shoal.db") as database:
        database.execute("update schema_version set version = 99")
    database.close()
    with pytest.raises(StateVersionError, match="schema version 99"):
        await create(settings_for(tmp_path)).start()


async def test_what_a_server_did_not_live_to_clear_goes_at_the_next_start(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with running(settings) as stub:
        name = (await finished(stub, (await start_job(stub)).name)).name.rpartition("/")[2]
    folder = settings.state_dir / "jobs" / name
    (folder / "in").mkdir(parents=True)
    (folder / "in/net.pt2").write_bytes(b"a model")
    async with running(settings):
        assert {path.name for path in folder.iterdir()} <= {"log"}
