"""A real server, a stub that talks to it, and short ways to say what tests say often."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from crc32c import crc32c
from google.rpc import error_details_pb2, status_pb2

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.server import create
from service.settings import ServerSettings

WORKERS = Path(__file__).parent / "workers"


def worker_command(name: str, *arguments: str) -> tuple[str, ...]:
    """The command of a worker script."""
    return (sys.executable, "-P", str(WORKERS / f"{name}.py"), *arguments)


def settings_for(tmp_path: Path, **changes: Any) -> ServerSettings:
    defaults: dict[str, Any] = {
        "address": "127.0.0.1:0",
        "state_dir": tmp_path / "state",
        "worker_command": worker_command("finish"),
        "heartbeat_seconds": 0.2,
        "progress_interval": 0.01,
        "cancel_grace": 0.5,
        "stop_grace": 0.2,
        "deadline_grace": 0.5,
        "min_free_bytes": 0,
    }
    return ServerSettings(**(defaults | changes))


@asynccontextmanager
async def running(settings: ServerSettings) -> AsyncIterator[ModelOptimizerStub]:
    """A real server and a stub that talks to it."""
    server = create(settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield ModelOptimizerStub(channel)
    finally:
        await server.stop()


def upload_messages(
    data: bytes, *, upload_id: str = "upload-0001", start: int = 0, chunk: int = 1000, **changes: Any
) -> Iterator[service_pb.UploadArtifactRequest]:
    fields: dict[str, Any] = {
        "upload_id": upload_id,
        "kind": service_pb.ARTIFACT_KIND_MODEL,
        "filename": "net.pt2",
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    yield service_pb.UploadArtifactRequest(metadata=service_pb.UploadMetadata(**(fields | changes)))
    for offset in range(start, len(data), chunk):
        piece = data[offset : offset + chunk]
        message = service_pb.UploadChunk(offset=offset, data=piece, crc32c=crc32c(piece))
        yield service_pb.UploadArtifactRequest(chunk=message)


async def upload(stub: ModelOptimizerStub, data: bytes, **changes: Any) -> service_pb.Artifact:
    return await stub.UploadArtifact(upload_messages(data, **changes))


async def job_request(stub: ModelOptimizerStub, **fields: Any) -> service_pb.CreateOptimizationJobRequest:
    """A request for a job on a small uploaded file."""
    artifact = await upload(stub, b"a model", upload_id="upload-of-model")
    job = job_pb.OptimizationJob(spec={"model": {"pt2_artifact": artifact.name}, "budget": {"fraction": 0.5}})
    return service_pb.CreateOptimizationJobRequest(optimization_job=job, **fields)


async def start_job(stub: ModelOptimizerStub, **fields: Any) -> job_pb.OptimizationJob:
    return await stub.CreateOptimizationJob(await job_request(stub, **fields))


async def follow(stub: ModelOptimizerStub, name: str, resume_after: int = 0) -> list[service_pb.JobEvent]:
    """All events to the end, without heartbeats."""
    request = service_pb.WatchOptimizationJobRequest(name=name, resume_after=resume_after)
    return [event async for event in stub.WatchOptimizationJob(request) if not event.HasField("heartbeat")]


async def finished(stub: ModelOptimizerStub, name: str) -> job_pb.OptimizationJob:
    """The job once it is over."""
    return (await follow(stub, name))[-1].snapshot


async def reached(
    stub: ModelOptimizerStub, name: str, condition: Callable[[job_pb.OptimizationJob], bool]
) -> job_pb.OptimizationJob:
    """The job once a condition holds of it."""
    async for _ in stub.WatchOptimizationJob(service_pb.WatchOptimizationJobRequest(name=name)):
        job = await stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=name))
        if condition(job):
            return job
    raise AssertionError(f"{name} ended before")


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead but not buried does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Returns once a condition holds, which must be soon."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (nobody could set an event: it is about other processes and files)
            await asyncio.sleep(0.01)


async def gone(pid: int) -> None:
    """Returns once a process is gone."""
    await eventually(lambda: not alive(pid))


class Refusal:
    """The status that a call ended with, opened up."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        status = status_pb2.Status.FromString(error.trailing_metadata()["grpc-status-details-bin"])
        self.code = error.code()
        self.message = error.details() or ""
        assert status.message == self.message
        assert status.code == self.code.value[0]
        self.details = {any_.TypeName().rpartition(".")[2]: any_ for any_ in status.details}
        assert len(self.details) == len(status.details), "each kind of detail at most once"
        self.info = error_details_pb2.ErrorInfo()
        assert self.details["ErrorInfo"].Unpack(self.info)
        assert self.info.domain == "shoal"

    @property
    def fields(self) -> dict[str, str]:
        """Field violations."""
        request = error_details_pb2.BadRequest()
        assert self.details["BadRequest"].Unpack(request)
        return {item.field: item.description for item in request.field_violations}


async def refusal(call: Awaitable[Any]) -> Refusal:
    """What a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return Refusal(caught.value)
