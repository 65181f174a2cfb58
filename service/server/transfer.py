"""Files over the wire: chunks in, chunks out."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Final, final

from crc32c import crc32c

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from service import convert
from service.errors import (
    ArtifactDamagedError,
    InvalidRequestError,
    NotFoundError,
    UploadInProgressError,
    UploadSupersededError,
    Violation,
)
from service.storage.artifacts import Artifact, ArtifactStore
from service.uploads.announcement import Announcement
from service.uploads.openupload import OpenUpload
from service.uploads.uploads import Uploads

_LOG = logging.getLogger(__name__)

Requests = AsyncIterator[service_pb.UploadArtifactRequest]


_SILENT_SECONDS: Final = 2.0
"""An upload that nothing was heard of for so long has most likely lost its client, and another call may take over."""


@final
class _Arrival:
    """One call that sends an upload."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Artifact] | None = None
        self.heard = time.monotonic()
        self.complete = False

    @property
    def silent(self) -> bool:
        """Whether nothing has come for a while, though something should."""
        return not self.complete and time.monotonic() - self.heard > _SILENT_SECONDS

    @property
    def done(self) -> bool:
        return self.task is not None and self.task.done()

    async def end(self) -> None:
        """Ends the call; what arrived so far is kept."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})


@final
class Receiver:
    """Takes uploads. Of several calls for the same upload one sends; another takes over when that one falls silent."""

    def __init__(self, uploads: Uploads) -> None:
        """Stores through `uploads`."""
        self._uploads = uploads
        self._active: dict[tuple[str, str], _Arrival] = {}
        self._finishing: dict[tuple[str, str], asyncio.Task[Artifact]] = {}

    async def receive(self, requests: Requests, principal: str) -> Artifact:
        """Takes one upload stream of a principal to its end.

        Raises:
            InvalidRequestError: The stream does not begin with metadata, or these break a rule.
            ServiceError: See `Uploads.begin`, `OpenUpload.append` and `OpenUpload.finish`.
            UploadInProgressError: Another call is sending this upload.
            UploadSupersededError: Another call took over.
        """
        first = await anext(requests, None)
        if first is None or first.WhichOneof("message") != "metadata":
            raise InvalidRequestError([Violation("metadata", "must be the first message of the stream")])
        announced = replace(convert.read_announcement(first.metadata), principal=principal)
        upload = (principal, announced.upload_id)
        while (before := self._active.get(upload)) is not None and not before.done and before.silent:
            await before.end()
        # Putting a large file together may take long, and goes on when its client does not wait for it.
        if upload in self._finishing or (before is not None and not before.done):
            size = await to_thread(self._committed, announced)
            raise UploadInProgressError(f"another call is sending upload {announced.upload_id}", size)
        arrival = self._active[upload] = _Arrival()
        try:
            arrival.task = asyncio.create_task(self._receive(announced, requests, arrival))
            await asyncio.wait({arrival.task})
            if arrival.task.cancelled():
                size = await to_thread(self._committed, announced)
                raise UploadSupersededError(f"another call took over upload {announced.upload_id}", size)
            return arrival.task.result()
        finally:
            await arrival.end()
            if self._active.get(upload) is arrival:
                del self._active[upload]

    def _committed(self, announced: Announcement) -> int:
        """Returns how much of an upload is durable; 0 of one that was not even begun."""
        with suppress(NotFoundError):
            return self._uploads.status(announced.upload_id, announced.principal).committed_size
        return 0

    async def _receive(self, announced: Announcement, requests: Requests, arrival: _Arrival) -> Artifact:
        begun = await to_thread(self._uploads.begin, announced)
        if isinstance(begun, Artifact):
            return begun
        try:
            arrival.heard = time.monotonic()
            async for request in requests:
                await to_thread(_append, begun, request)
                arrival.heard = time.monotonic()
            arrival.complete = True
        except BaseException:
            await to_thread(begun.close)
            raise
        return await self._finish(begun, (announced.principal, announced.upload_id))

    async def _finish(self, begun: OpenUpload, upload: tuple[str, str]) -> Artifact:
        """Puts the file together, whether or not the client stays to hear of it."""
        task = asyncio.create_task(to_thread(_finish, begun))

        def forget(_task: asyncio.Task[Artifact]) -> None:
            if self._finishing.get(upload) is task:
                del self._finishing[upload]
            if not task.cancelled() and (error := task.exception()) is not None:
                _LOG.info("an upload could not be finished: %s", error)

        self._finishing[upload] = task
        task.add_done_callback(forget)
        return await asyncio.shield(task)


def _finish(upload: OpenUpload) -> Artifact:
    with upload:
        return upload.finish()


def _append(upload: OpenUpload, request: service_pb.UploadArtifactRequest) -> None:
    if request.WhichOneof("message") != "chunk":
        raise InvalidRequestError([Violation("chunk", "must follow the metadata, which may be sent only once")])
    chunk = request.chunk
    upload.append(chunk.offset, chunk.data, chunk.crc32c)


async def send(
    store: ArtifactStore, artifact: Artifact, offset: int, chunk_bytes: int
) -> AsyncIterator[service_pb.DownloadArtifactResponse]:
    """Yields the messages of a download.

    Args:
        store: Where the bytes are.
        artifact: Which file.
        offset: First byte wanted.
        chunk_bytes: Size of a chunk.

    Raises:
        OffsetRangeError: The offset lies outside of the file.
        StorageUnavailableError: The storage does not answer.
        ArtifactDamagedError: The stored bytes are not what was stored; known only at the end, and only from offset 0.
    """
    stream = await to_thread(store.open, artifact, offset)
    try:
        yield service_pb.DownloadArtifactResponse(artifact=convert.write_artifact(artifact))
        digest = hashlib.sha256()
        position = offset
        while data := await to_thread(stream.read, chunk_bytes):
            checksum = await to_thread(_digest, data, digest)
            chunk = service_pb.UploadChunk(offset=position, data=data, crc32c=checksum)
            yield service_pb.DownloadArtifactResponse(chunk=chunk)
            position += len(data)
        if position != artifact.size_bytes or (offset == 0 and digest.hexdigest() != artifact.sha256):
            raise ArtifactDamagedError(f"the stored bytes of {artifact.name} are damaged")
        yield service_pb.DownloadArtifactResponse(sha256=artifact.sha256)
    finally:
        await to_thread(stream.close)


def _digest(data: bytes, digest: hashlib._Hash) -> int:
    digest.update(data)
    return crc32c(data)
