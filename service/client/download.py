"""Fetches one file into a temporary name beside its destination, checks every byte, then renames it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import crc32c
import grpc

from protos.shoal.v1 import model_optimizer_pb2 as pb
from service.client.channel import pause_after
from service.client.errors import DataLossError, code_of, from_rpc
from service.client.silence import SilenceGuard

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedRandom
    from pathlib import Path

    from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub

ATTEMPTS_WITHOUT_PROGRESS: Final = 8
_BLOCK: Final = 1024 * 1024
SILENCE: Final = 60.0
_RESUMABLE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class _BrokenChunkError(Exception):
    """A chunk arrived damaged or out of order: ask again from the last good byte."""


@dataclass(frozen=True)
class Incoming:
    """One file to fetch.

    Attributes:
        name: `artifacts/{id}`.
        path: Where it goes; replaced if it exists.
        on_progress: Called with (bytes stored, bytes in all).
    """

    name: str
    path: Path
    on_progress: Callable[[int, int], None]


def fetch(stub: ModelOptimizerStub, incoming: Incoming, address: str) -> Path:
    """Downloads a file; a partial one left by an earlier attempt is continued. Returns the destination.

    Args:
        stub: The server.
        incoming: The file.
        address: The server's address, for messages.

    Raises:
        ShoalError: The server refused, stayed away, or sent other bytes than its own SHA-256 promises.
        OSError: The destination cannot be written.
    """
    incoming.path.parent.mkdir(parents=True, exist_ok=True)
    part = incoming.path.with_name(f".{incoming.path.name}.{incoming.name.rpartition('/')[2]}.part")
    resumed = part.exists() and part.stat().st_size > 0
    if not _complete(stub, incoming, part, address) and not (resumed and _complete(stub, incoming, part, address)):
        raise DataLossError(
            f"{incoming.name} arrived with another SHA-256 than the server has on record; download it again",
            "CHECKSUM_MISMATCH",
        )
    part.replace(incoming.path)
    return incoming.path


def _complete(stub: ModelOptimizerStub, incoming: Incoming, part: Path, address: str) -> bool:
    """Fills `part` to the end; False, and no `part`, when the whole is not what the server promised."""
    with part.open("a+b") as file:
        found = _fill(stub, incoming, file, address)
        wanted = _receive_digest(found)
        good = wanted == _sha256(file)
    if not good:
        part.unlink()
    return good


def _receive_digest(found: tuple[pb.Artifact, str]) -> str | None:
    artifact, streamed = found
    return streamed if streamed == artifact.sha256 else None


def _fill(stub: ModelOptimizerStub, incoming: Incoming, file: BufferedRandom, address: str) -> tuple[pb.Artifact, str]:
    failures = 0
    while True:
        before = file.seek(0, 2)
        try:
            return _receive(stub, incoming, file, wait=failures > 0)
        except _BrokenChunkError as exc:
            failures = 1 if file.tell() > before else failures + 1
            if failures >= ATTEMPTS_WITHOUT_PROGRESS:
                raise DataLossError(f"{incoming.name} keeps arriving damaged: {exc}", "CHUNK_CHECKSUM") from exc
        except grpc.RpcError as exc:
            failures = 1 if file.tell() > before else failures + 1
            if code_of(exc) is grpc.StatusCode.OUT_OF_RANGE and before > 0:
                file.truncate(0)  # longer than the file itself: not ours, start over
            elif code_of(exc) not in _RESUMABLE or failures >= ATTEMPTS_WITHOUT_PROGRESS:
                raise from_rpc(exc, address) from exc
        time.sleep(pause_after(failures))


def _receive(
    stub: ModelOptimizerStub, incoming: Incoming, file: BufferedRandom, *, wait: bool
) -> tuple[pb.Artifact, str]:
    position = file.seek(0, 2)
    artifact = pb.Artifact()
    request = pb.DownloadArtifactRequest(name=incoming.name, offset=position)
    call = stub.DownloadArtifact(request, wait_for_ready=wait)
    with SilenceGuard(call, SILENCE) as guard:
        for message in call:
            guard.heard()
            match message.WhichOneof("message"):
                case "artifact":
                    artifact = message.artifact
                case "chunk":
                    position = _store(message.chunk, position, file)
                case "sha256":
                    return artifact, message.sha256
            incoming.on_progress(position, artifact.size_bytes)
    raise _BrokenChunkError(f"the stream ended after {position} of {artifact.size_bytes} bytes")


def _store(chunk: pb.UploadChunk, position: int, file: BufferedRandom) -> int:
    if chunk.offset != position:
        raise _BrokenChunkError(f"expected a chunk at byte {position}, got one at {chunk.offset}")
    if crc32c.crc32c(chunk.data) != chunk.crc32c:
        raise _BrokenChunkError(f"the chunk at byte {position} has a wrong CRC-32C")
    file.write(chunk.data)
    return position + len(chunk.data)


def _sha256(file: BufferedRandom) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
