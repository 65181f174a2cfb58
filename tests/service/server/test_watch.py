from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.server import create
from tests.service.server_harness import follow, reached, refusal, running, settings_for, start_job, worker_command

State = job_pb.OptimizationJob.State


def watch(stub: ModelOptimizerStub, name: str, resume_after: int = 0) -> grpc.aio.UnaryStreamCall:
    return stub.WatchOptimizationJob(service_pb.WatchOptimizationJobRequest(name=name, resume_after=resume_after))


async def test_a_stream_tells_the_whole_story(stub: ModelOptimizerStub) -> None:
    events = await follow(stub, (await start_job(stub)).name)

    assert events[0].WhichOneof("event") == "snapshot"
    assert [event.sequence for event in events] == list(range(len(events)))
    states = [event.snapshot.state for event in events[1:] if event.HasField("snapshot")]
    assert states == [State.STATE_QUEUED, State.STATE_RUNNING, State.STATE_SUCCEEDED]
    assert [event.progress.phase for event in events if event.HasField("progress")] == ["load", "plan", "report"]
    assert events[-1].snapshot.result.speedup == 2.1


async def test_the_same_event_always_has_the_same_number(stub: ModelOptimizerStub) -> None:
    name = (await start_job(stub)).name
    live = await follow(stub, name)

    assert (await follow(stub, name))[1:] == live[1:]


async def test_a_stream_goes_on_after_the_last_event_seen(stub: ModelOptimizerStub) -> None:
    name = (await start_job(stub)).name
    live = await follow(stub, name)
    for seen in range(1, live[-1].sequence):
        resumed = await follow(stub, name, resume_after=seen)
        assert resumed[0].HasField("snapshot")
        assert resumed[0].sequence == seen
        assert resumed[1:] == live[seen + 1 :]


async def test_whoever_saw_everything_gets_the_final_snapshot_only(stub: ModelOptimizerStub) -> None:
    name = (await start_job(stub)).name
    last = (await follow(stub, name))[-1]
    again = await follow(stub, name, resume_after=last.sequence)

    assert [(event.sequence, event.snapshot) for event in again] == [(last.sequence, last.snapshot)]


@pytest.mark.parametrize("resume_after", [-1, 1000])
async def test_a_number_that_was_never_given_is_refused(stub: ModelOptimizerStub, resume_after: int) -> None:
    name = (await start_job(stub)).name

    assert (await refusal(follow(stub, name, resume_after))).code is grpc.StatusCode.OUT_OF_RANGE


async def test_a_quiet_stream_has_heartbeats(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"), heartbeat_seconds=0.05)
    async with running(settings) as stub:
        job = await reached(stub, (await start_job(stub)).name, lambda job: job.progress.phase == "tune")
        call, beats, last = watch(stub, job.name), 0, 0
        async for event in call:
            if event.HasField("heartbeat"):
                assert event.sequence == last
                beats += 1
            last = event.sequence
            if beats == 3:
                break
        call.cancel()


async def test_leaving_the_stream_leaves_the_job_alone(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("sleep"))) as stub:
        name = (await start_job(stub)).name
        await reached(stub, name, lambda job: job.progress.phase == "tune")
        leaving = watch(stub, name)
        await leaving.read()
        leaving.cancel()
        with pytest.raises(grpc.aio.AioRpcError, match="Deadline"):
            async for _ in stub.WatchOptimizationJob(service_pb.WatchOptimizationJobRequest(name=name), timeout=0.3):
                pass
        await asyncio.sleep(0.1)
        job = await stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=name))

        assert job.state == State.STATE_RUNNING


async def test_many_watchers_see_the_same(stub: ModelOptimizerStub) -> None:
    name = (await start_job(stub)).name
    stories = await asyncio.gather(*(follow(stub, name) for _ in range(20)))

    assert all(story[1:] == stories[0][1:] for story in stories)


async def test_watchers_are_sent_away_when_the_server_stops(tmp_path: Path) -> None:
    server = create(settings_for(tmp_path, worker_command=worker_command("sleep"), heartbeat_seconds=15))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = ModelOptimizerStub(channel)
        name = (await start_job(stub)).name
        watching = asyncio.create_task(refusal(follow(stub, name)))
        await reached(stub, name, lambda job: job.progress.phase == "tune")
        await server.stop()
        refused = await watching

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert "RetryInfo" in refused.details


async def test_a_quiet_call_with_keepalive_pings_stays_open(tmp_path: Path) -> None:
    server = create(settings_for(tmp_path, worker_command=worker_command("sleep"), heartbeat_seconds=15))
    port = await server.start()
    options = [("grpc.keepalive_time_ms", 1_100), ("grpc.http2.max_pings_without_data", 0)]
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            stub = ModelOptimizerStub(channel)
            name = (await start_job(stub)).name
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(follow(stub, name), 8)
    finally:
        await server.stop()
