from __future__ import annotations

import asyncio
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.settings import ServerSettings
from service.watching.spans import FinishedSpan, set_sink
from tests.service.executors.cluster import RayCluster, node_of, raylet_of
from tests.service.server.test_agents import agent, known, start, until
from tests.service.server.test_agents import running as running_at
from tests.service.server.test_restart import queue, served
from tests.service.server_harness import (
    alive,
    eventually,
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


@pytest.fixture
def nodes(cluster: RayCluster) -> RayCluster:
    """The cluster with two nodes."""
    cluster.fill(2)
    return cluster


@pytest.fixture
def exported() -> Iterator[list[FinishedSpan]]:
    """The spans that this process hands in, from now on."""
    found: list[FinishedSpan] = []
    set_sink(found.append)
    yield found
    set_sink(None)


def on_ray(tmp_path: Path, cluster: RayCluster, *command: str, **changes: Any) -> ServerSettings:
    defaults: dict[str, Any] = {
        "executor": "ray",
        "ray_address": cluster.address,
        "ray_node_dir": tmp_path / "node",
        "ray_silence_seconds": 5.0,
        "worker_command": worker_command(*command or ("finish",)),
    }
    return settings_for(tmp_path, **(defaults | changes))


def is_working(job: job_pb.OptimizationJob) -> bool:
    return job.progress.phase == "tune"


@pytest.mark.slow
async def test_a_job_runs_on_a_node_and_its_result_is_stored(tmp_path: Path, nodes: RayCluster) -> None:
    async with running(on_ray(tmp_path, nodes, "roams", "0.1")) as stub:
        job = await finished(stub, (await start_job(stub)).name)
        result = next(item for item in job.result.artifacts if item.filename == "model.onnx")
        request = service_pb.DownloadArtifactRequest(name=result.name)
        content = b"".join([message.chunk.data async for message in stub.DownloadArtifact(request)])

    assert job.state == State.STATE_SUCCEEDED
    assert content == b"shallow" * 1000
    assert (tmp_path / "state/jobs" / job.name.rpartition("/")[2] / "log").exists() is False
    assert list((tmp_path / "node/jobs").iterdir()) == []
    assert list((tmp_path / "state/artifacts/checkpoints").iterdir()) == []


@pytest.mark.slow
async def test_a_dry_run_runs_on_a_node(tmp_path: Path, nodes: RayCluster) -> None:
    async with running(on_ray(tmp_path, nodes)) as stub:
        artifact = await upload(stub, b"a model")
        found = await stub.AnalyzeModel(service_pb.AnalyzeModelRequest(model={"pt2_artifact": artifact.name}))

    assert found.parameters == 5


@pytest.mark.slow
async def test_jobs_spread_and_those_without_a_node_wait_without_losing_time(tmp_path: Path, nodes: RayCluster) -> None:
    async with running(on_ray(tmp_path, nodes, "roams", workers=3)) as stub:
        first, second = [(await start_job(stub)).name for _ in range(2)]
        places = {node_of(await pid_of(stub, name)) for name in (first, second)}
        third = (await start_job(stub)).name
        waiting = await reached(stub, third, lambda job: job.progress.phase == "wait")
        await asyncio.sleep(2)
        await cancel(stub, first)
        job = await reached(stub, third, is_working)
        for name in (second, third):
            await cancel(stub, name)

    assert places == {raylet_of(node) for node in nodes.nodes}
    assert "Waits for a node of the Ray cluster with 1 CPU" in waiting.progress.message
    assert job.progress.metrics["limit"] == job.spec.time_limit.ToSeconds()


@pytest.mark.slow
async def test_a_cancel_reaches_the_node(tmp_path: Path, nodes: RayCluster) -> None:
    async with running(on_ray(tmp_path, nodes, "stubborn")) as stub:
        name = (await start_job(stub)).name
        child = int((await reached(stub, name, is_working)).progress.metrics["child"])
        await cancel(stub, name)
        job = await finished(stub, name)

    assert job.state == State.STATE_CANCELLED
    await gone(child)


async def test_a_job_whose_node_dies_goes_on_elsewhere_from_what_it_had_kept(tmp_path: Path, nodes: RayCluster) -> None:
    async with running(on_ray(tmp_path, nodes, "roams")) as stub:
        name = (await start_job(stub)).name
        worker = await pid_of(stub, name)
        index = tmp_path / "state/artifacts/checkpoints" / name.rpartition("/")[2] / "index.json"
        await eventually(lambda: index.exists() and "fits/" in index.read_text(), 10)
        nodes.kill(next(node for node in nodes.nodes if raylet_of(node) == node_of(worker)))
        story = await follow(stub, name)
    job = story[-1].snapshot
    last = [event.progress.metrics for event in story if event.HasField("progress") and event.progress.metrics][-1]

    assert (job.state, job.attempts) == (State.STATE_SUCCEEDED, 2)
    assert (last["found"], last["weights"]) == (1, len("fitted"))
    assert last["limit"] == job.spec.time_limit.ToSeconds() - 5
    await gone(worker)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_is_asked_to_stop_requeues_its_jobs(
    tmp_path: Path, nodes: RayCluster, number: signal.Signals
) -> None:
    settings = on_ray(tmp_path, nodes, "roams")
    await queue(settings, "some")
    async with served(settings) as (stub, server):
        worker = await pid_of(stub, "optimizationJobs/some")
        server.send_signal(number)
        assert await asyncio.to_thread(server.wait, 30) == 0
    await gone(worker)
    with sqlite3.connect(tmp_path / "state/shoal.db") as database:
        assert database.execute("select state, losses from jobs").fetchall() == [("QUEUED", 0)]
    database.close()


@pytest.mark.slow
async def test_a_killed_server_leaves_nothing_running(tmp_path: Path, nodes: RayCluster) -> None:
    settings = on_ray(tmp_path, nodes, "roams")
    await queue(settings, "some")
    async with served(settings) as (stub, server):
        worker = await pid_of(stub, "optimizationJobs/some")
        server.kill()
        await asyncio.to_thread(server.wait)
        await eventually(lambda: not alive(worker), 15)
    async with running(settings) as stub:
        job = await finished(stub, "optimizationJobs/some")

    assert (job.state, job.attempts) == (State.STATE_SUCCEEDED, 2)
    assert job.progress.metrics["found"] == 1


@pytest.mark.slow
async def test_a_worker_on_a_node_asks_a_device_far_away(
    tmp_path: Path, nodes: RayCluster, exported: list[FinishedSpan]
) -> None:
    settings = on_ray(tmp_path, nodes, "asks")
    token = known(settings)
    async with running_at(settings) as (stub, address), agent(address, token, tmp_path / "agent") as edge:
        await until(lambda: edge.said)
        job = await finished(stub, (await start(stub, 2)).name)

    assert job.state == State.STATE_SUCCEEDED, job.error
    found = [job.progress.metrics[name] for name in ("first_0", "second_0", "first_1", "second_1")]
    assert found == [1.0, 11.0, 2.0, 12.0]
    places = {span.name: span.place for span in exported}
    assert places["baseline"].trace_id == places["attempt"].trace_id  # of the worker, and of its server


@pytest.mark.slow
async def test_ten_jobs_end_once_each_though_a_node_dies(tmp_path: Path, nodes: RayCluster) -> None:
    async with running(on_ray(tmp_path, nodes, "roams", "2", workers=10)) as stub:
        names = [(await start_job(stub)).name for _ in range(10)]
        worker = await pid_of(stub, names[0])
        nodes.kill(next(node for node in nodes.nodes if raylet_of(node) == node_of(worker)))
        stories = [await follow(stub, name) for name in names]
    # The first event of a story is the job as it is now.
    snapshots = [[event.snapshot for event in story[1:] if event.HasField("snapshot")] for story in stories]
    endings = [[job.state for job in told if job.HasField("end_time")] for told in snapshots]

    assert endings == [[State.STATE_SUCCEEDED]] * 10
    assert {story[-1].snapshot.attempts for story in stories} == {1, 2}


async def pid_of(stub: ModelOptimizerStub, name: str) -> int:
    """The process of a job's worker, once it works."""
    return int((await reached(stub, name, is_working)).progress.metrics["pid"])


async def cancel(stub: ModelOptimizerStub, name: str) -> None:
    await stub.CancelOptimizationJob(service_pb.CancelOptimizationJobRequest(name=name))
