# ruff: noqa: N802, D102, ARG002 (method names, documentation and parameters are those of the proto)
"""The RPCs of `shoal.v1.ModelOptimizer`. Each one reads its request, asks the service, and writes the answer.

Errors are raised as the service's own exceptions; `interceptor` turns them into statuses.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from asyncio import to_thread
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, final

import grpc
from google.protobuf.empty_pb2 import Empty

from compressors.strategies import STRATEGIES
from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerServicer
from service import convert
from service.access.gate import Gate
from service.database.clock import now
from service.devices.desk import Desk
from service.errors import DrainingError, InvalidRequestError, OffsetRangeError, Violation
from service.jobs.admission import Reach, artifact_references, check_references, check_strategy, check_target
from service.jobs.job import JOB_PREFIX, Job, NewJob
from service.jobs.removal import Removal
from service.jobs.store import JobStore
from service.server import removing
from service.server.access import caller
from service.server.devices import list_devices
from service.server.hub import Hub
from service.server.paging import read_page_size, read_token, write_token
from service.server.tail import PAGE, Tail
from service.server.transfer import Receiver, send
from service.settings import ServerSettings
from service.storage.artifacts import ARTIFACT_PREFIX, ArtifactStore
from service.supervision.supervisor import Supervisor
from service.uploads.uploads import Uploads
from service.waiting import set_within

_JOB_ID = re.compile(r"[a-z][a-z0-9-]{3,62}")
_MAX_DISPLAY_NAME = 256
_MAX_RESPONSE = 3 << 20  # clients receive 4 MiB at most

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Parts:
    """What the RPCs work on."""

    settings: ServerSettings
    jobs: JobStore
    artifacts: ArtifactStore
    uploads: Uploads
    supervisor: Supervisor
    hub: Hub
    desk: Desk
    gate: Gate
    removal: Removal


@final
class Servicer(ModelOptimizerServicer):
    """All RPCs of the service."""

    def __init__(self, parts: Parts) -> None:
        """Serves from the parts of one server."""
        self._parts = parts
        self._receiver = Receiver(parts.uploads)
        self._tail = Tail(parts.jobs)

    async def CreateOptimizationJob(
        self, request: service_pb.CreateOptimizationJobRequest, context: Context
    ) -> job_pb.OptimizationJob:
        self._check_open()
        new = replace(read_new_job(request), principal=caller().name)
        settings = self._parts.settings
        await to_thread(self._parts.artifacts.storage.check)
        await to_thread(check_references, new.spec, self._reach, "spec.")
        await to_thread(check_strategy, new.spec.strategy, "spec.")
        await to_thread(check_target, new.spec.target, self._parts.desk.agents, "spec.", self._parts.supervisor.devices)
        new = replace(new, needs=tuple(reference.name for reference in artifact_references(new.spec)))
        job = await to_thread(self._parts.jobs.create, new, settings.queue_limit, settings.principal_queue_limit)
        self._parts.supervisor.wake()
        return convert.write_job(job)

    async def GetOptimizationJob(
        self, request: service_pb.GetOptimizationJobRequest, context: Context
    ) -> job_pb.OptimizationJob:
        job_id = read_name(request.name, JOB_PREFIX)
        return convert.write_job(await to_thread(self._parts.jobs.get, job_id, caller().sees))

    async def ListOptimizationJobs(
        self, request: service_pb.ListOptimizationJobsRequest, context: Context
    ) -> service_pb.ListOptimizationJobsResponse:
        size, before = read_page_size(request.page_size), read_token(request.page_token)
        # One more than asked for, to know whether there is a next page.
        found = await to_thread(self._parts.jobs.newest, size + 1, before, caller().sees)
        response = service_pb.ListOptimizationJobsResponse()
        room = _MAX_RESPONSE
        for index, (_, job) in enumerate(found):
            message = convert.write_job(job)
            room -= message.ByteSize()
            if index == size or (index and room < 0):
                response.next_page_token = write_token(found[index - 1][0])
                break
            response.optimization_jobs.append(message)
        return response

    async def CancelOptimizationJob(
        self, request: service_pb.CancelOptimizationJobRequest, context: Context
    ) -> job_pb.OptimizationJob:
        job_id = read_name(request.name, JOB_PREFIX)
        return convert.write_job(await self._parts.supervisor.cancel(job_id, caller().sees))

    async def WatchOptimizationJob(
        self, request: service_pb.WatchOptimizationJobRequest, context: Context
    ) -> AsyncIterator[service_pb.JobEvent]:
        job_id = read_name(request.name, JOB_PREFIX)
        with self._parts.hub.subscribe(job_id) as changed:
            job = await to_thread(self._parts.jobs.get, job_id, caller().sees)
            if not 0 <= request.resume_after <= job.last_sequence:
                raise OffsetRangeError(
                    f"resume_after is {request.resume_after}, and {job.name} has events up to {job.last_sequence}"
                )
            yield convert.write_opening(job, request.resume_after, now())
            async for event in self._events(job, request.resume_after, changed):
                yield event

    async def _events(self, job: Job, sequence: int, changed: asyncio.Event) -> AsyncIterator[service_pb.JobEvent]:
        while not (job.finished and sequence >= job.last_sequence):
            changed.clear()
            news = await self._tail.after(job.id, sequence)
            for event in news:
                yield event.message
                sequence = event.sequence
                if event.last:
                    return
            if len(news) == PAGE:
                continue
            if not news:
                # Removed meanwhile: nothing can come any more.
                await to_thread(self._parts.jobs.get, job.id)
            if not await self._changed(changed):
                yield convert.write_heartbeat(sequence, now())

    async def _changed(self, changed: asyncio.Event) -> bool:
        """Waits for news; False if there is none for as long as a stream may be silent."""
        self._check_open()
        return await set_within(changed, self._parts.settings.heartbeat_seconds)

    async def UploadArtifact(
        self, request_iterator: AsyncIterator[service_pb.UploadArtifactRequest], context: Context
    ) -> service_pb.Artifact:
        self._check_open()
        return convert.write_artifact(await self._receiver.receive(request_iterator, caller().name))

    async def GetUploadStatus(
        self, request: service_pb.GetUploadStatusRequest, context: Context
    ) -> service_pb.UploadStatus:
        status = await to_thread(self._parts.uploads.status, request.upload_id, caller().name)
        return convert.write_upload_status(status)

    async def DownloadArtifact(
        self, request: service_pb.DownloadArtifactRequest, context: Context
    ) -> AsyncIterator[service_pb.DownloadArtifactResponse]:
        artifact_id = read_name(request.name, ARTIFACT_PREFIX)
        artifact = await to_thread(self._parts.artifacts.get, artifact_id, caller().sees)
        chunk = self._parts.settings.download_chunk_bytes
        async for message in send(self._parts.artifacts, artifact, request.offset, chunk):
            yield message

    async def ListDevices(
        self, request: service_pb.ListDevicesRequest, context: Context
    ) -> service_pb.ListDevicesResponse:
        size, after = read_page_size(request.page_size), read_token(request.page_token) or 0
        devices = await to_thread(list_devices, self._parts.desk)
        response = service_pb.ListDevicesResponse(devices=devices[after : after + size])
        if after + size < len(devices):
            response.next_page_token = write_token(after + size)
        return response

    async def ListStrategies(
        self, request: service_pb.ListStrategiesRequest, context: Context
    ) -> service_pb.ListStrategiesResponse:
        return await to_thread(_strategies)

    async def AnalyzeModel(
        self, request: service_pb.AnalyzeModelRequest, context: Context
    ) -> service_pb.AnalyzeModelResponse:
        self._check_open()
        spec = convert.read_analysis(request)
        await to_thread(check_references, spec, self._reach, "")
        await to_thread(check_target, spec.target, self._parts.desk.agents, "", self._parts.supervisor.devices)
        return convert.write_analysis(await self._parts.supervisor.analyze(spec, skip_floor=request.skip_floor))

    async def DeleteOptimizationJob(self, request: service_pb.DeleteOptimizationJobRequest, context: Context) -> Empty:
        job_id = read_name(request.name, JOB_PREFIX)
        with removing.missing_allowed(request.allow_missing):
            if request.force:
                await removing.stop(self._parts.jobs, self._parts.supervisor, self._parts.hub, job_id)
            await to_thread(self._parts.removal.remove_job, job_id, caller().sees)
            self._parts.hub.publish(job_id)
        return Empty()

    async def ListArtifacts(
        self, request: service_pb.ListArtifactsRequest, context: Context
    ) -> service_pb.ListArtifactsResponse:
        size, before = read_page_size(request.page_size), read_token(request.page_token)
        found = await to_thread(self._parts.artifacts.newest, size + 1, before, caller().sees)
        response = service_pb.ListArtifactsResponse(
            artifacts=[convert.write_artifact(artifact) for _, artifact in found[:size]]
        )
        if len(found) > size:
            response.next_page_token = write_token(found[size - 1][0])
        return response

    async def DeleteArtifact(self, request: service_pb.DeleteArtifactRequest, context: Context) -> Empty:
        artifact_id = read_name(request.name, ARTIFACT_PREFIX)
        with removing.missing_allowed(request.allow_missing):
            await to_thread(self._parts.removal.remove_artifact, artifact_id, caller().sees)
        return Empty()

    @property
    def _reach(self) -> Reach:
        """What the caller's specs may name."""
        return Reach(self._parts.artifacts, self._parts.settings.data_roots, caller().sees)

    def _check_open(self) -> None:
        if self._parts.hub.closed:
            raise DrainingError("the server is stopping; try again later")


def _strategies() -> service_pb.ListStrategiesResponse:
    return service_pb.ListStrategiesResponse(
        strategies=[
            convert.write_strategy(name, STRATEGIES[name].summary, STRATEGIES[name].schema())
            for name in sorted(STRATEGIES)
        ]
    )


def read_new_job(request: service_pb.CreateOptimizationJobRequest) -> NewJob:
    """Returns what a caller wants, checked as far as it can be without looking anything up.

    Raises:
        InvalidRequestError: Fields break their rules; all violations at once.
    """
    asked = request.optimization_job
    broken: list[Violation] = []
    if request.optimization_job_id and not _JOB_ID.fullmatch(request.optimization_job_id):
        broken.append(Violation("optimization_job_id", "must be 4 to 63 of [a-z0-9-], starting with a letter"))
    if request.request_id and not _is_uuid4(request.request_id):
        broken.append(Violation("request_id", "must be a UUID4"))
    if len(asked.display_name) > _MAX_DISPLAY_NAME:
        broken.append(Violation("display_name", f"must have at most {_MAX_DISPLAY_NAME} characters"))
    try:
        spec = convert.read_spec(asked.spec)
    except InvalidRequestError as exc:
        raise InvalidRequestError([*broken, *exc.violations]) from exc
    if broken:
        raise InvalidRequestError(broken)
    return NewJob(spec, asked.display_name, request.optimization_job_id, request.request_id.lower())


def _is_uuid4(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower() and uuid.UUID(text).version == 4
    except ValueError:
        return False


def read_name(name: str, prefix: str) -> str:
    """Returns the id in a resource name.

    Raises:
        InvalidRequestError: It is no such name.
    """
    resource_id = name.removeprefix(prefix)
    if not name.startswith(prefix) or not resource_id or "/" in resource_id:
        raise InvalidRequestError([Violation("name", f"must be {prefix}{{id}}")])
    return resource_id
