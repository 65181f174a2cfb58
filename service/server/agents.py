# ruff: noqa: N802, D102 (method names and documentation are those of the proto)
"""The RPCs of `shoal.v1.DeviceAgents`, which devices' agents call.

Who calls is known by a token; an agent sees nothing but the work that was given to it.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from asyncio import to_thread
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, final

import grpc
from google.protobuf.duration_pb2 import Duration

from deploy.digest import file_digest
from protos.shoal.v1 import device_agents_pb2 as pb
from protos.shoal.v1.device_agents_pb2_grpc import DeviceAgentsServicer
from service import convert
from service.devices.agents import HEARTBEAT, Agent
from service.devices.desk import Desk
from service.devices.work import LEASE, DeviceWork, Held, StoredFile, WorkAnswer
from service.errors import (
    AgentRefusedError,
    ChecksumMismatchError,
    InvalidRequestError,
    NotFoundError,
    QuotaError,
    Violation,
)
from service.server.recheck import kept
from service.storage.artifacts import safe_filename
from service.storage.disk import disk_errors

SERVICE_NAME: Final = "shoal.v1.DeviceAgents"
_LOG = logging.getLogger(__name__)
_BEARER: Final = "Bearer "
_MAX_PATIENCE: Final = timedelta(seconds=30)
_MAX_FILES: Final = 10_000
_MAX_SESSION: Final = 64
_MAX_DEVICE_BYTES: Final = 64 << 10
_CHUNK: Final = 512 << 10
_RECHECK_SECONDS: Final = 30.0

Context = grpc.aio.ServicerContext[Any, Any]


@final
class AgentsServicer(DeviceAgentsServicer):
    """All RPCs that agents call."""

    def __init__(self, desk: Desk, scratch: Path, max_answer_bytes: int) -> None:
        """Serves from a desk.

        Args:
            desk: The work.
            scratch: Folder for answers on their way in; made if it is missing.
            max_answer_bytes: Largest answer, all its files together.
        """
        self._desk, self._scratch, self._most = desk, scratch, max_answer_bytes

    async def RegisterDevice(self, request: pb.RegisterDeviceRequest, context: Context) -> pb.RegisterDeviceResponse:
        agent = await self._caller(context)
        session = request.session
        if not 8 <= len(session) <= _MAX_SESSION:
            raise InvalidRequestError([Violation("session", f"must have 8 to {_MAX_SESSION} characters")])
        if request.device.ByteSize() > _MAX_DEVICE_BYTES:
            raise InvalidRequestError([Violation("device", f"must have at most {_MAX_DEVICE_BYTES} bytes")])
        device = convert.read_fields(request.device, "device")
        await to_thread(self._desk.agents.register, agent.name, session, device, request.goes_on)
        if agent.session not in (None, session):
            _LOG.info("another session speaks for %s now", agent.target)
            self._desk.publish(agent.name)  # the one before may wait for work: it is told now
        answer = pb.RegisterDeviceResponse(name=agent.target)
        answer.heartbeat.FromTimedelta(HEARTBEAT)
        return answer

    async def LeaseWork(self, request: pb.LeaseWorkRequest, context: Context) -> pb.LeaseWorkResponse:
        agent = await self._speaker(context, request.session)
        patience = min(_duration(request.patience, "patience"), _MAX_PATIENCE)
        work = await self._desk.lease(agent.name, request.session, patience)
        if work is None:
            return pb.LeaseWorkResponse()
        place = await to_thread(self._desk.work.place, work.id)
        return pb.LeaseWorkResponse(work=_write_work(work, "" if place is None else place.traceparent))

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Context) -> pb.RenewLeaseResponse:
        agent = await self._speaker(context, request.session)
        await to_thread(self._desk.agents.seen, agent.name)
        held = Held(agent.name, request.session, request.work, request.lease)
        worked = _duration(request.worked, "worked").total_seconds()
        wanted = await to_thread(self._desk.work.renew, held, request.message, worked)
        self._desk.publish(request.work)
        return pb.RenewLeaseResponse(wanted=wanted)

    async def DownloadWorkFile(
        self, request: pb.DownloadWorkFileRequest, context: Context
    ) -> AsyncIterator[pb.DownloadWorkFileResponse]:
        agent = await self._caller(context)
        work = await to_thread(self._desk.work.find, request.work)
        if work is None or work.agent != agent.name or not 0 <= request.index < len(work.files):
            raise NotFoundError("file of work", f"{request.work}/{request.index}")
        stream = await to_thread(self._desk.files.open, work.id, "in", request.index, request.offset)
        due = time.monotonic() + _RECHECK_SECONDS
        try:
            while data := await to_thread(stream.read, _CHUNK):
                if time.monotonic() >= due:
                    await self._caller(context)
                    due = time.monotonic() + _RECHECK_SECONDS
                yield pb.DownloadWorkFileResponse(data=data)
        finally:
            await to_thread(stream.close)

    async def CompleteWork(
        self, request_iterator: AsyncIterator[pb.CompleteWorkRequest], context: Context
    ) -> pb.CompleteWorkResponse:
        agent = await self._caller(context)
        first = await anext(request_iterator, None)
        if first is None or first.WhichOneof("message") != "answer":
            raise InvalidRequestError([Violation("answer", "must be the first message of the stream")])
        answer = first.answer
        held = Held(agent.name, answer.session, answer.work, answer.lease)
        if not await to_thread(self._desk.work.may_complete, held):
            # Done already, perhaps by this very call before its connection was lost; or somebody else's now.
            return pb.CompleteWorkResponse(taken=await to_thread(self._desk.work.complete, held, WorkAnswer()))
        files = await kept(self._receive(answer, request_iterator), lambda: self._caller(context), _RECHECK_SECONDS)
        failure = (answer.failure.kind, answer.failure.message) if answer.HasField("failure") else None
        told = WorkAnswer(files, failure, max(0.0, _duration(answer.took, "answer.took").total_seconds()))
        taken = await to_thread(self._desk.work.complete, held, told)
        self._desk.publish(answer.work)
        return pb.CompleteWorkResponse(taken=taken)

    async def _receive(
        self, answer: pb.WorkAnswer, requests: AsyncIterator[pb.CompleteWorkRequest]
    ) -> tuple[StoredFile, ...]:
        """Stores the files of an answer."""
        total = sum(file.size_bytes for file in answer.files)
        if len(answer.files) > _MAX_FILES or total > self._most or any(file.size_bytes < 0 for file in answer.files):
            raise QuotaError("device work", f"an answer may have {_MAX_FILES} files and {self._most} bytes at most")
        if not answer.HasField("failure") and not answer.files:
            raise InvalidRequestError([Violation("answer.files", "must hold the result, or there must be a failure")])
        with disk_errors("the state folder"):
            self._scratch.mkdir(parents=True, exist_ok=True)
            folder = await to_thread(lambda: tempfile.TemporaryDirectory(dir=self._scratch))
        with folder as name:
            incoming = _Incoming(answer, Path(name))
            async for request in requests:
                await to_thread(incoming.take, request)
            paths = await to_thread(incoming.finish)
            stored = [
                await to_thread(self._desk.files.put, answer.work, "out", place, path)
                for place, path in enumerate(paths)
            ]
        return tuple(stored)

    async def _caller(self, context: Context) -> Agent:
        """Returns the agent that calls."""
        found = dict(context.invocation_metadata() or ()).get("authorization", "")
        text = found.decode(errors="replace") if isinstance(found, bytes) else found
        if not text.startswith(_BEARER):
            raise AgentRefusedError("an agent has to send `authorization: Bearer TOKEN`")
        return await to_thread(self._desk.agents.authenticate, text.removeprefix(_BEARER))

    async def _speaker(self, context: Context, session: str) -> Agent:
        """Returns the agent that calls, if this session speaks for it."""
        agent = await self._caller(context)
        agent.check_speaker(session)
        return agent


@final
class _Incoming:
    """The bytes of an answer's files, one after the other, checked against what was announced."""

    def __init__(self, answer: pb.WorkAnswer, folder: Path) -> None:
        self._announced = list(answer.files)
        # By place: names from outside name no paths here. The last part says what a file is called.
        self._paths = [
            folder / str(place) / (safe_filename(file.filename) or "file") for place, file in enumerate(self._announced)
        ]
        for path in self._paths:
            path.parent.mkdir()
            path.touch()
        self._left = [file.size_bytes for file in self._announced]
        self._place = 0

    def take(self, request: pb.CompleteWorkRequest) -> None:
        """Appends bytes."""
        if request.WhichOneof("message") != "data":
            raise InvalidRequestError([Violation("data", "must follow the answer, which may be sent only once")])
        data = request.data
        while data:
            self._skip_complete()
            if self._place == len(self._left):
                raise ChecksumMismatchError("an answer brought more bytes than it announced")
            piece = data[: self._left[self._place]]
            with disk_errors("the state folder"), self._paths[self._place].open("ab") as stream:
                stream.write(piece)
            self._left[self._place] -= len(piece)
            data = data[len(piece) :]

    def finish(self) -> list[Path]:
        """Returns the files, once all bytes are there and have the hashes that were announced."""
        self._skip_complete()
        if self._place < len(self._left):
            raise ChecksumMismatchError("an answer brought fewer bytes than it announced; send it again")
        for path, file in zip(self._paths, self._announced, strict=True):
            if file_digest(path) != file.sha256:
                raise ChecksumMismatchError("a file of an answer has another SHA-256 than announced; send it again")
        return self._paths

    def _skip_complete(self) -> None:
        while self._place < len(self._left) and self._left[self._place] == 0:
            self._place += 1


def _write_work(work: DeviceWork, traceparent: str) -> pb.Work:
    request = json.dumps(work.request)
    message = pb.Work(id=work.id, lease=work.lease, kind=work.kind, request=request, traceparent=traceparent)
    message.lease_duration.FromTimedelta(LEASE)
    for file in work.files:
        message.files.add(filename=file.filename, size_bytes=file.size_bytes, sha256=file.sha256)
    return message


def _duration(message: Duration, field: str) -> timedelta:
    try:
        return message.ToTimedelta()
    except (OverflowError, ValueError) as exc:
        raise InvalidRequestError([Violation(field, "is no duration")]) from exc
