"""Servers with state folders of their own over one database and one store."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.settings import ServerSettings
from tests.service.postgres import Postgres
from tests.service.server.test_agents import agent, known, start, until
from tests.service.server.test_agents import running as answering
from tests.service.server.test_restart import queue, served
from tests.service.server_harness import (
    eventually,
    finished,
    follow,
    gone,
    reached,
    running,
    settings_for,
    start_job,
    worker_command,
)

State = job_pb.OptimizationJob.State


def one_of(tmp_path: Path, name: str, url: str, *worker: str, **changes: Any) -> ServerSettings:
    """The settings of one of several servers."""
    shared = {"database_url": url, "storage_url": f"file://{tmp_path / 'store'}"}
    # Long enough for a machine whose host is busy elsewhere for a second.
    quick = {"job_lease_seconds": 3.0, "job_look_seconds": 0.05}
    command = worker_command(*(worker or ("finish",)))
    return settings_for(tmp_path, state_dir=tmp_path / name, worker_command=command, **{**shared, **quick, **changes})


@asynccontextmanager
async def busy(settings: ServerSettings) -> AsyncIterator[tuple[ModelOptimizerStub, str, int]]:
    """A server in this process, a job that runs there, and its worker."""
    async with running(settings) as stub:
        name = (await start_job(stub)).name
        job = await reached(stub, name, is_working)
        yield stub, name, int(job.progress.metrics["worker"])


def is_working(job: job_pb.OptimizationJob) -> bool:
    return job.progress.phase == "tune"


def story(events: list[service_pb.JobEvent]) -> list[State.ValueType]:
    """The states that a job went through."""
    return [event.snapshot.state for event in events[1:] if event.HasField("snapshot")]


async def test_a_job_is_watched_and_cancelled_through_another_server(database_url: str, tmp_path: Path) -> None:
    async with (
        busy(one_of(tmp_path, "a", database_url, "slow", "600")) as (_, name, worker),
        running(one_of(tmp_path, "b", database_url, workers=1)) as other,
    ):
        watching = asyncio.create_task(follow(other, name))
        await reached(other, name, is_working)
        cancelled = await other.CancelOptimizationJob(service_pb.CancelOptimizationJobRequest(name=name))
        events = await asyncio.wait_for(watching, 30)
        await gone(worker)

    assert cancelled.state == State.STATE_CANCELLING
    assert events[-1].snapshot.state == State.STATE_CANCELLED
    assert [event.sequence for event in events] == list(range(events[0].sequence, events[0].sequence + len(events)))


async def test_what_is_queued_through_one_server_runs_on_another(postgres_url: str, tmp_path: Path) -> None:
    async with (
        busy(one_of(tmp_path, "a", postgres_url, "slow", "600")) as (stub, *_),
        running(one_of(tmp_path, "b", postgres_url)) as other,
    ):
        waiting = (await start_job(stub)).name
        assert (await finished(stub, waiting)).state == State.STATE_SUCCEEDED
        result = (await finished(other, waiting)).result
        download = service_pb.DownloadArtifactRequest(name=result.artifacts[0].name)
        parts = [part.chunk.data async for part in stub.DownloadArtifact(download) if part.HasField("chunk")]
        assert len(b"".join(parts)) == result.artifacts[0].size_bytes


async def test_a_job_whose_server_is_killed_is_ended_once_by_another(postgres_url: str, tmp_path: Path) -> None:
    settings, name = one_of(tmp_path, "a", postgres_url, "slow", "600"), "optimizationJobs/some"
    await queue(settings, "some")
    async with served(settings) as (stub, server):
        working = await reached(stub, name, is_working)
        async with running(one_of(tmp_path, "b", postgres_url)) as other:
            await asyncio.sleep(4)  # longer than a lease that is not renewed
            assert (await other.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=name))).attempts == 1
            server.kill()
            events = await asyncio.wait_for(follow(other, name), 40)
    # Real workers die with their server, and this one does not.
    os.kill(int(working.progress.metrics["worker"]), signal.SIGKILL)

    assert events[-1].snapshot.attempts == 2
    assert story(events) == [
        State.STATE_QUEUED, State.STATE_RUNNING, State.STATE_QUEUED, State.STATE_RUNNING, State.STATE_SUCCEEDED,
    ]  # fmt: skip


async def test_a_server_that_stalled_writes_nothing_of_what_it_lost(postgres_url: str, tmp_path: Path) -> None:
    """Its worker comes to its end meanwhile, so that there is something to be written."""
    settings, name = one_of(tmp_path, "a", postgres_url, "slow", "1"), "optimizationJobs/some"
    await queue(settings, "some")
    async with served(settings) as (stub, server):
        await reached(stub, name, is_working)
        server.send_signal(signal.SIGSTOP)
        async with running(one_of(tmp_path, "b", postgres_url, "slow", "600")) as other:
            second = await asyncio.wait_for(reached(other, name, lambda job: is_working(job) and job.attempts == 2), 40)
            server.send_signal(signal.SIGCONT)
            folder = tmp_path / "a/jobs/some"
            await eventually(lambda: [path.name for path in folder.iterdir()] == ["log"], 30)
            third = await other.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=name))
            assert third == second
            await other.CancelOptimizationJob(service_pb.CancelOptimizationJobRequest(name=name))
            events = await follow(other, name)

    assert [event.progress.phase for event in events if event.HasField("progress")] == ["tune", "tune"]
    assert story(events) == [
        State.STATE_QUEUED, State.STATE_RUNNING, State.STATE_QUEUED, State.STATE_RUNNING, State.STATE_CANCELLING,
        State.STATE_CANCELLED,
    ]  # fmt: skip


async def test_a_stop_hands_jobs_to_the_others_at_once(postgres_url: str, tmp_path: Path) -> None:
    patient = {"job_lease_seconds": 600.0}
    async with running(one_of(tmp_path, "a", postgres_url, **patient)) as other:
        async with busy(one_of(tmp_path, "b", postgres_url, "slow", "600", **patient)) as (_, name, _worker):
            pass
        assert (await asyncio.wait_for(finished(other, name), 10)).attempts == 2


async def test_an_agent_of_one_server_works_for_jobs_of_another(postgres_url: str, tmp_path: Path) -> None:
    first, second = (one_of(tmp_path, name, postgres_url, "asks") for name in ("a", "b"))
    token = known(first)
    async with (
        answering(first) as (stub, _),
        answering(second) as (_, address),
        agent(address, token, tmp_path / "agent") as edge,
    ):
        await until(lambda: edge.said)
        job = await finished(stub, (await start(stub, 2)).name)

    assert job.state == State.STATE_SUCCEEDED, job.error
    assert edge.done("run") == 2
    assert not list((tmp_path / "store/device-work").glob("*"))


@pytest.mark.parametrize(("lease", "attempts"), [(60.0, 1), (3.0, 2)])
async def test_a_worker_outlives_its_database_for_as_long_as_a_lease(
    postgres: Postgres, postgres_url: str, tmp_path: Path, lease: float, attempts: int
) -> None:
    settings = one_of(tmp_path, "a", postgres_url, "slow", "600", job_lease_seconds=lease)
    async with busy(settings) as (stub, name, worker):
        postgres.stop()
        await asyncio.sleep(1.5) if attempts == 1 else await gone(worker)
        postgres.start()
        job = await reached(stub, name, lambda job: is_working(job) and job.attempts == attempts)

    assert (int(job.progress.metrics["worker"]) == worker) is (attempts == 1)
