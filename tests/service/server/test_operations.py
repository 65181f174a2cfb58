"""Jobs as google.longrunning operations, called as a client does that has nothing but reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2 as pb
from google.longrunning.operations_pb2_grpc import OperationsStub
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.server import create
from service.settings import ServerSettings
from tests.service.server_harness import finished, refusal, settings_for, start_job, worker_command


@asynccontextmanager
async def running(settings: ServerSettings) -> AsyncIterator[tuple[ModelOptimizerStub, OperationsStub, Any]]:
    server = create(settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield ModelOptimizerStub(channel), OperationsStub(channel), channel
    finally:
        await server.stop()


def operation_name(job: job_pb.OptimizationJob) -> str:
    return job.name.replace("optimizationJobs/", "operations/")


async def test_a_job_is_polled_to_its_result(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as (stub, operations, _):
        name = operation_name(await start_job(stub))
        async with asyncio.timeout(20):
            operation = await operations.GetOperation(pb.GetOperationRequest(name=name))
            while not operation.done:
                await asyncio.sleep(0.02)
                operation = await operations.GetOperation(pb.GetOperationRequest(name=name))

    progress, job = job_pb.JobProgress(), job_pb.OptimizationJob()
    assert operation.metadata.Unpack(progress)
    assert operation.response.Unpack(job)
    assert progress.phase == "report"
    assert operation.name == name == operation_name(job)
    assert job.state == job_pb.OptimizationJob.STATE_SUCCEEDED
    assert job.result.artifacts


async def test_waiting_ends_with_the_job_or_with_patience(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"))
    async with running(settings) as (stub, operations, _):
        name = operation_name(await start_job(stub))
        short = pb.WaitOperationRequest(name=name, timeout=Duration(nanos=200_000_000))
        unfinished = await operations.WaitOperation(short)
        waiting = asyncio.ensure_future(operations.WaitOperation(pb.WaitOperationRequest(name=name)))
        await operations.CancelOperation(pb.CancelOperationRequest(name=name))
        async with asyncio.timeout(20):
            cancelled = await waiting

    assert not unfinished.done
    assert cancelled.done
    assert cancelled.error.code == code_pb2.CANCELLED


async def test_a_failure_is_a_status_with_its_reason(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("error", "UNSAFE_MODEL", "caller"))
    async with running(settings) as (stub, operations, _):
        job = await start_job(stub)
        await finished(stub, job.name)
        operation = await operations.GetOperation(pb.GetOperationRequest(name=operation_name(job)))

    info = error_details_pb2.ErrorInfo()
    assert operation.error.details[0].Unpack(info)
    assert (operation.error.code, operation.error.message) == (code_pb2.FAILED_PRECONDITION, "it cannot")
    assert (info.reason, info.domain, info.metadata["blame"]) == ("UNSAFE_MODEL", "shoal", "caller")


async def test_operations_are_listed_by_pages(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"))
    async with running(settings) as (stub, operations, _):
        made = [operation_name(await start_job(stub)) for _ in range(3)]
        first = await operations.ListOperations(pb.ListOperationsRequest(name="operations", page_size=2))
        rest = await operations.ListOperations(
            pb.ListOperationsRequest(name="operations", page_size=2, page_token=first.next_page_token)
        )

    assert [one.name for one in (*first.operations, *rest.operations)] == made[::-1]
    assert not rest.next_page_token


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("GetOperation", pb.GetOperationRequest(name="operations/nowhere"), grpc.StatusCode.NOT_FOUND),
        ("GetOperation", pb.GetOperationRequest(name="optimizationJobs/a"), grpc.StatusCode.INVALID_ARGUMENT),
        ("WaitOperation", pb.WaitOperationRequest(name="operations/nowhere"), grpc.StatusCode.NOT_FOUND),
        ("CancelOperation", pb.CancelOperationRequest(name="operations/nowhere"), grpc.StatusCode.NOT_FOUND),
        ("ListOperations", pb.ListOperationsRequest(name="jobs"), grpc.StatusCode.INVALID_ARGUMENT),
        ("ListOperations", pb.ListOperationsRequest(filter="done"), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_cannot_be_done_is_refused(method: str, request_: Any, code: Any, tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as (_, operations, _channel):
        refused = await refusal(getattr(operations, method)(request_))

    assert refused.code == code


async def test_deleting_an_operation_deletes_its_job(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as (stub, operations, _channel):
        job = await start_job(stub)
        await finished(stub, job.name)
        await operations.DeleteOperation(pb.DeleteOperationRequest(name=operation_name(job)))
        refused = await refusal(operations.GetOperation(pb.GetOperationRequest(name=operation_name(job))))

    assert refused.code == grpc.StatusCode.NOT_FOUND


async def test_an_operation_under_way_is_not_deleted(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("sleep"))) as (stub, operations, _channel):
        job = await start_job(stub)
        refused = await refusal(operations.DeleteOperation(pb.DeleteOperationRequest(name=operation_name(job))))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_ACTIVE")


async def test_a_client_with_nothing_but_reflection_can_call(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as (stub, _, channel):
        name = operation_name(await start_job(stub))
        pool = await reflected(channel, "google.longrunning.Operations")
        method = pool.FindServiceByName("google.longrunning.Operations").methods_by_name["GetOperation"]
        request, response = (message_factory.GetMessageClass(each) for each in (method.input_type, method.output_type))
        call = channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        answer = await call(request(name=name))

    assert answer.name == name


async def reflected(channel: grpc.aio.Channel, symbol: str) -> descriptor_pool.DescriptorPool:
    """What a server says of a service, with every file that it builds on."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    found: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    async def ask(**what: str) -> None:
        answer = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**what)]))
        for data in (await answer.read()).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            found[file.name] = file
            for name in file.dependency:
                if name not in found:
                    await ask(file_by_filename=name)

    await ask(file_containing_symbol=symbol)
    pool = descriptor_pool.DescriptorPool()

    def add(file: descriptor_pb2.FileDescriptorProto) -> None:
        for name in file.dependency:
            if name in found:
                add(found.pop(name))
        pool.Add(file)

    while found:
        add(found.pop(next(iter(found))))
    return pool
