"""SIGTERM while something is under way: each call ends soon, with a status that says so, and can be taken up again."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from tests.service.server_harness import (
    eventually,
    job_request,
    refusal,
    upload,
    upload_messages,
    worker_command,
)
from tests.service.server_process import ServerProcess

DATA = bytes(range(256)) * 80_000
GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


async def code_of(call: Awaitable[Any]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    except asyncio.CancelledError:  # as aio tells of calls that the server ended
        return grpc.StatusCode.CANCELLED
    return grpc.StatusCode.OK


async def test_everything_under_way_ends_and_is_taken_up_again(tmp_path: Path) -> None:
    sleeping = list(worker_command("sleep"))
    with ServerProcess(
        tmp_path, stop_grace=1.0, cancel_grace=1.0, commit_bytes=1000, worker_command=sleeping
    ) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = ModelOptimizerStub(channel)
            stored = await upload(stub, DATA, upload_id="upload-whole", chunk=1_000_000)
            request = await job_request(stub)
            job = await stub.CreateOptimizationJob(request)
            calls = await begin(stub, job, stored)
            await eventually(lambda: any((tmp_path / "analyses").glob("*/log")), 60)
            began = time.monotonic()
            await asyncio.to_thread(server.end, signal.SIGTERM)
            took = time.monotonic() - began
            uploaded, downloaded, watched, analysed = await asyncio.gather(*calls)
        server.start()
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = ModelOptimizerStub(channel)
            await take_up(stub, job, stored)

    assert took < 15
    assert {uploaded, downloaded} <= GONE
    for each in (watched, analysed):
        assert (each.code, each.info.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def begin(
    stub: ModelOptimizerStub, job: job_pb.OptimizationJob, stored: service_pb.Artifact
) -> list[asyncio.Task[Any]]:
    """An upload, a download, a watch and a dry run, all of them under way."""
    started = [asyncio.Event() for _ in range(3)]
    calls = (
        code_of(stub.UploadArtifact(slow_upload(started[0]))),
        code_of(slow_download(stub, stored.name, started[1])),
        refusal(watch(stub, job.name, started[2])),
        refusal(stub.AnalyzeModel(service_pb.AnalyzeModelRequest(model=job.spec.model))),
    )
    tasks = [asyncio.create_task(each) for each in calls]
    async with asyncio.timeout(60):
        for each in started:
            await each.wait()
    return tasks


async def slow_upload(started: asyncio.Event) -> AsyncIterator[service_pb.UploadArtifactRequest]:
    for number, message in enumerate(upload_messages(DATA[::-1], upload_id="upload-slow", chunk=50_000)):
        if number == 4:
            started.set()
            await asyncio.sleep(60)
        yield message


async def slow_download(stub: ModelOptimizerStub, name: str, started: asyncio.Event) -> None:
    async for _ in stub.DownloadArtifact(service_pb.DownloadArtifactRequest(name=name)):
        started.set()
        await asyncio.sleep(0.2)


async def watch(stub: ModelOptimizerStub, name: str, started: asyncio.Event) -> None:
    async for event in stub.WatchOptimizationJob(service_pb.WatchOptimizationJobRequest(name=name)):
        if event.HasField("progress"):
            started.set()


async def take_up(stub: ModelOptimizerStub, job: job_pb.OptimizationJob, stored: service_pb.Artifact) -> None:
    """Goes on with what was interrupted."""
    status = await stub.GetUploadStatus(service_pb.GetUploadStatusRequest(upload_id="upload-slow"))
    assert status.committed_size == 150_000
    rest = upload_messages(DATA[::-1], upload_id="upload-slow", start=150_000, chunk=1_000_000)
    assert (await stub.UploadArtifact(rest)).size_bytes == len(DATA)
    request = service_pb.DownloadArtifactRequest(name=stored.name, offset=1_000_000)
    pieces = [message.chunk.data async for message in stub.DownloadArtifact(request)]
    assert b"".join(pieces) == DATA[1_000_000:]
    found = await stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=job.name))
    assert found.state in {job_pb.OptimizationJob.STATE_QUEUED, job_pb.OptimizationJob.STATE_RUNNING}
