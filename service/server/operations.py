# ruff: noqa: N802, D102 (method names and documentation are those of google/longrunning/operations.proto)
"""`google.longrunning.Operations` over the same jobs, for clients that know nothing else: `operations/{job id}`.

Everything goes through the methods of `ModelOptimizer`, so that what they allow, refuse and say holds here too.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, Final, final

import grpc
from google.longrunning import operations_pb2 as pb
from google.longrunning import operations_pb2_grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.errors import InvalidRequestError, Violation
from service.faults import BY_REASON
from service.jobs.job import JOB_PREFIX
from service.server.servicer import Servicer, read_name
from service.server.status import DOMAIN

SERVICE_NAME: Final = "google.longrunning.Operations"
PREFIX: Final = "operations/"
_COLLECTIONS: Final = ("", "operations")
_State = job_pb.OptimizationJob.State
_OVER: Final = (_State.STATE_SUCCEEDED, _State.STATE_FAILED, _State.STATE_CANCELLED, _State.STATE_EXPIRED)

Context = grpc.aio.ServicerContext[Any, Any]


@final
class OperationsServicer(operations_pb2_grpc.OperationsServicer):  # type: ignore[misc]
    """Jobs as operations."""

    def __init__(self, jobs: Servicer) -> None:
        """Serves the jobs of a servicer."""
        self._jobs = jobs

    async def GetOperation(self, request: pb.GetOperationRequest, context: Context) -> pb.Operation:
        asked = service_pb.GetOptimizationJobRequest(name=_job_name(request.name))
        return write_operation(await self._jobs.GetOptimizationJob(asked, context))

    async def ListOperations(self, request: pb.ListOperationsRequest, context: Context) -> pb.ListOperationsResponse:
        if request.name not in _COLLECTIONS:
            raise InvalidRequestError([Violation("name", "must be `operations` or empty")])
        if request.filter:
            raise InvalidRequestError([Violation("filter", "is not supported; leave it empty")])
        asked = service_pb.ListOptimizationJobsRequest(page_size=request.page_size, page_token=request.page_token)
        found = await self._jobs.ListOptimizationJobs(asked, context)
        operations = [write_operation(job) for job in found.optimization_jobs]
        return pb.ListOperationsResponse(operations=operations, next_page_token=found.next_page_token)

    async def CancelOperation(self, request: pb.CancelOperationRequest, context: Context) -> Empty:
        asked = service_pb.CancelOptimizationJobRequest(name=_job_name(request.name))
        await self._jobs.CancelOptimizationJob(asked, context)
        return Empty()

    async def WaitOperation(self, request: pb.WaitOperationRequest, context: Context) -> pb.Operation:
        name = _job_name(request.name)
        patience = request.timeout.ToTimedelta().total_seconds() if request.HasField("timeout") else None
        try:
            async with asyncio.timeout(patience), aclosing(self._watch(name, context)) as events:
                async for event in events:
                    if event.snapshot.state in _OVER:
                        break
        except TimeoutError:
            pass  # how far it is by then is the answer
        job = await self._jobs.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=name), context)
        return write_operation(job)

    async def DeleteOperation(self, request: pb.DeleteOperationRequest, context: Context) -> Empty:
        asked = service_pb.DeleteOptimizationJobRequest(name=_job_name(request.name))
        return await self._jobs.DeleteOptimizationJob(asked, context)

    def _watch(self, name: str, context: Context) -> Any:
        return self._jobs.WatchOptimizationJob(service_pb.WatchOptimizationJobRequest(name=name), context)


def write_operation(job: job_pb.OptimizationJob) -> pb.Operation:
    """Returns a job as an operation: its progress is the metadata, the job itself the response."""
    operation = pb.Operation(
        name=PREFIX + job.name.removeprefix(JOB_PREFIX), metadata=_packed(job.progress), done=job.state in _OVER
    )
    if job.state == _State.STATE_SUCCEEDED:
        operation.response.CopyFrom(_packed(job))
    elif operation.done:
        operation.error.CopyFrom(_error(job))
    return operation


def _error(job: job_pb.OptimizationJob) -> status_pb2.Status:
    if job.state == _State.STATE_CANCELLED:
        return status_pb2.Status(code=_number("CANCELLED"), message="the job was cancelled")
    known = BY_REASON.get(job.error.reason)
    code = known.code if known is not None else "FAILED_PRECONDITION" if job.error.blame == "caller" else "INTERNAL"
    info = error_details_pb2.ErrorInfo(
        reason=job.error.reason, domain=DOMAIN, metadata={"blame": job.error.blame, "job": job.name}
    )
    return status_pb2.Status(code=_number(code), message=job.error.message, details=[_packed(info)])


def _number(code: str) -> int:
    number: int = grpc.StatusCode[code].value[0]
    return number


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _job_name(name: str) -> str:
    return JOB_PREFIX + read_name(name, PREFIX)
