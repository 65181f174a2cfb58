"""Sends one file in checked chunks, and goes on where it stopped, in this process or a later one."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import crc32c
import grpc

from protos.shoal.v1 import model_optimizer_pb2 as pb
from service.client.channel import pause_after
from service.client.errors import code_of, from_rpc
from service.client.silence import SilenceGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub

CHUNK: Final = 512 * 1024
ATTEMPTS_WITHOUT_PROGRESS: Final = 8
_RESUMABLE: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
)
_OTHERS_SECONDS: Final = 0.5
SILENCE: Final = 120.0
"""Seconds; covers what the server does with the last chunk, hashing a file of tens of gigabytes."""


@dataclass(frozen=True)
class Outgoing:
    """One file to upload.

    Attributes:
        path: Where it is.
        metadata: What announces it.
        on_progress: Called with (bytes sent, bytes in all), from another thread.
    """

    path: Path
    metadata: pb.UploadMetadata
    on_progress: Callable[[int, int], None]


def describe(path: Path, kind: pb.ArtifactKind.ValueType, filename: str) -> pb.UploadMetadata:
    """Reads a file once and returns what announces it.

    The upload id is derived from the content, so that a restarted client finds its half-finished upload again.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
            size += len(block)
    sha256 = digest.hexdigest()
    identity = hashlib.sha256(f"{kind}/{filename}/{size}/{sha256}".encode()).hexdigest()
    return pb.UploadMetadata(
        upload_id=f"u-{identity[:40]}", kind=kind, filename=filename, size_bytes=size, sha256=sha256
    )


def send(stub: ModelOptimizerStub, outgoing: Outgoing, address: str, timeout: float) -> pb.Artifact:
    """Uploads a file, resuming as long as attempts bring it further.

    Args:
        stub: The server.
        outgoing: The file.
        address: The server's address, for messages.
        timeout: Seconds allowed for each question about the state of the upload.

    Raises:
        ShoalError: The server refused the file, or stayed away.
        OSError: The file cannot be read.
    """
    failures, best = 0, -1
    while True:
        try:
            status = _status(stub, outgoing.metadata.upload_id, timeout, wait=failures > 0)
            if status.HasField("artifact"):
                outgoing.on_progress(outgoing.metadata.size_bytes, outgoing.metadata.size_bytes)
                return status.artifact
            failures, best = (0, status.committed_size) if status.committed_size > best else (failures, best)
            return _stream(stub, outgoing, status.committed_size)
        except grpc.RpcError as exc:
            if from_rpc(exc, address).reason == "UPLOAD_IN_PROGRESS":
                # Somebody sends the very same file, and as long as the server says so, it gets further.
                time.sleep(_OTHERS_SECONDS)
                continue
            failures += 1
            if code_of(exc) not in _RESUMABLE or failures >= ATTEMPTS_WITHOUT_PROGRESS:
                raise from_rpc(exc, address) from exc
            time.sleep(pause_after(failures))


def _status(stub: ModelOptimizerStub, upload_id: str, timeout: float, *, wait: bool) -> pb.UploadStatus:
    request = pb.GetUploadStatusRequest(upload_id=upload_id)
    try:
        # After a lost connection the server may need a moment to come back.
        return stub.GetUploadStatus(request, timeout=timeout, wait_for_ready=wait)
    except grpc.RpcError as exc:
        if code_of(exc) is not grpc.StatusCode.NOT_FOUND:
            raise
        return pb.UploadStatus()


def _stream(stub: ModelOptimizerStub, outgoing: Outgoing, offset: int) -> pb.Artifact:
    feed = _Feed(outgoing, offset)
    call = stub.UploadArtifact.future(iter(feed))
    with SilenceGuard(call, SILENCE) as feed.guard:
        try:
            return call.result()
        except grpc.RpcError as exc:
            # gRPC hides what its request iterator raises behind a status of its own.
            if feed.problem is not None:
                raise feed.problem from exc
            raise


@final
class _Feed:
    """The messages of one attempt, made in a thread of gRPC's."""

    def __init__(self, outgoing: Outgoing, offset: int) -> None:
        self.guard: SilenceGuard | None = None
        self.problem: OSError | None = None
        self._outgoing = outgoing
        self._offset = offset

    def __iter__(self) -> Iterator[pb.UploadArtifactRequest]:
        yield pb.UploadArtifactRequest(metadata=self._outgoing.metadata)
        try:
            yield from self._chunks()
        except OSError as exc:
            self.problem = exc
            raise

    def _chunks(self) -> Iterator[pb.UploadArtifactRequest]:
        position = self._offset
        with self._outgoing.path.open("rb") as file:
            file.seek(position)
            while data := file.read(CHUNK):
                chunk = pb.UploadChunk(offset=position, data=data, crc32c=crc32c.crc32c(data))
                yield pb.UploadArtifactRequest(chunk=chunk)
                position += len(data)
                self._outgoing.on_progress(position, self._outgoing.metadata.size_bytes)
                if self.guard is not None:
                    self.guard.heard()
