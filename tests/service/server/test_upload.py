from __future__ import annotations

import asyncio
import hashlib
import random
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from crc32c import crc32c

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.server import transfer
from tests.service.server_harness import refusal, running, settings_for, upload, upload_messages

DATA = random.Random(0).randbytes(10_500)


async def status_of(stub: ModelOptimizerStub, upload_id: str = "upload-0001") -> service_pb.UploadStatus:
    return await stub.GetUploadStatus(service_pb.GetUploadStatusRequest(upload_id=upload_id))


async def download(stub: ModelOptimizerStub, name: str, offset: int = 0) -> tuple[service_pb.Artifact, bytes, str]:
    request = service_pb.DownloadArtifactRequest(name=name, offset=offset)
    messages = [message async for message in stub.DownloadArtifact(request)]
    assert [message.WhichOneof("message") for message in messages[:1]] == ["artifact"]
    assert messages[-1].WhichOneof("message") == "sha256"
    data = b""
    for message in messages[1:-1]:
        assert message.chunk.offset == offset + len(data)
        assert message.chunk.crc32c == crc32c(message.chunk.data)
        data += message.chunk.data
    return messages[0].artifact, data, messages[-1].sha256


async def break_off(stub: ModelOptimizerStub, messages: Iterator[service_pb.UploadArtifactRequest]) -> None:
    """Sends some messages, then goes away without a word."""
    call = stub.UploadArtifact()
    for message in messages:
        await call.write(message)
    await asyncio.sleep(0.5)
    call.cancel()


async def committed(stub: ModelOptimizerStub, size: int) -> None:
    """Waits until so much of the upload is durable."""
    async with asyncio.timeout(30):
        while await committed_size(stub) != size:  # noqa: ASYNC110 (it is the server that knows)
            await asyncio.sleep(0.01)


async def committed_size(stub: ModelOptimizerStub) -> int | None:
    """Returns how much of the upload is durable; None while it is not even announced."""
    try:
        return (await status_of(stub)).committed_size
    except grpc.aio.AioRpcError as exc:
        assert exc.code() is grpc.StatusCode.NOT_FOUND, exc  # noqa: PT017 (anything else is a failure)
        return None


def first(
    count: int, messages: Iterator[service_pb.UploadArtifactRequest]
) -> Iterator[service_pb.UploadArtifactRequest]:
    return (message for message, _ in zip(messages, range(count), strict=False))


def altered(index: int, **fields: Any) -> Iterator[service_pb.UploadArtifactRequest]:
    """The messages of an upload, with fields of one chunk changed."""
    for number, message in enumerate(upload_messages(DATA)):
        if number == index:
            message.chunk.MergeFrom(service_pb.UploadChunk(**fields))
        yield message


@pytest.fixture
async def on_each(tmp_path: Path, database_url: str) -> AsyncIterator[ModelOptimizerStub]:
    """Talks to a server over each kind of database."""
    async with running(settings_for(tmp_path, database_url=database_url)) as stub:
        yield stub


async def test_what_goes_up_comes_down(stub: ModelOptimizerStub) -> None:
    artifact = await upload(stub, DATA)

    assert (artifact.size_bytes, artifact.filename) == (len(DATA), "net.pt2")
    assert artifact.sha256 == hashlib.sha256(DATA).hexdigest()
    assert await download(stub, artifact.name) == (artifact, DATA, artifact.sha256)
    assert await download(stub, artifact.name, 10_000) == (artifact, DATA[10_000:], artifact.sha256)
    assert await download(stub, artifact.name, len(DATA)) == (artifact, b"", artifact.sha256)
    status = await status_of(stub)
    assert (status.committed_size, status.artifact) == (len(DATA), artifact)


async def test_known_bytes_are_not_read_again(stub: ModelOptimizerStub) -> None:
    artifact = await upload(stub, DATA)
    only_metadata = first(1, upload_messages(DATA, upload_id="another-upload", filename="other.pt2"))

    assert await stub.UploadArtifact(only_metadata) == artifact
    assert await upload(stub, DATA, upload_id="third-upload") == artifact
    assert await upload(stub, DATA) == artifact


async def test_the_same_bytes_as_another_kind_are_another_artifact(stub: ModelOptimizerStub) -> None:
    model = await upload(stub, DATA)
    data = await upload(stub, DATA, upload_id="upload-0002", kind=service_pb.ARTIFACT_KIND_DATA)

    assert (data.kind, data.sha256) == (service_pb.ARTIFACT_KIND_DATA, model.sha256)
    assert data.name != model.name


async def test_a_broken_off_upload_goes_on_where_it_stopped(stub: ModelOptimizerStub) -> None:
    await break_off(stub, first(4, upload_messages(DATA)))
    await committed(stub, 3000)

    artifact = await stub.UploadArtifact(upload_messages(DATA, start=3000))
    assert (await download(stub, artifact.name))[1] == DATA


async def test_an_upload_goes_on_after_a_restart(tmp_path: Path, database_url: str) -> None:
    settings = settings_for(tmp_path, database_url=database_url)
    async with running(settings) as stub:
        await break_off(stub, first(4, upload_messages(DATA)))
        await committed(stub, 3000)
    with next((tmp_path / "state/artifacts/uploads").glob("upload-0001.*.part")).open("ab") as partial:
        partial.write(b"written but never committed")
    async with running(settings) as stub:
        assert (await status_of(stub)).committed_size == 3000
        artifact = await stub.UploadArtifact(upload_messages(DATA, start=3000))
        assert (await download(stub, artifact.name))[1] == DATA


async def test_a_stream_that_ends_early_keeps_what_arrived(stub: ModelOptimizerStub) -> None:
    refused = await refusal(stub.UploadArtifact(first(6, upload_messages(DATA))))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.ABORTED, "UPLOAD_INCOMPLETE")
    assert refused.info.metadata["committed_size"] == "5000"
    assert (await stub.UploadArtifact(upload_messages(DATA, start=5000))).size_bytes == len(DATA)


async def test_a_damaged_chunk_is_to_be_sent_again(stub: ModelOptimizerStub) -> None:
    refused = await refusal(stub.UploadArtifact(altered(3, data=b"y" * 1000)))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.ABORTED, "CHUNK_CHECKSUM")
    assert refused.info.metadata["committed_size"] == "2000"
    assert (await status_of(stub)).committed_size == 2000
    assert (await stub.UploadArtifact(upload_messages(DATA, start=2000))).size_bytes == len(DATA)


@pytest.mark.parametrize("offset", [1, 5000])
async def test_a_chunk_at_the_wrong_offset_is_refused(stub: ModelOptimizerStub, offset: int) -> None:
    refused = await refusal(stub.UploadArtifact(altered(3, offset=offset)))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.OUT_OF_RANGE, "CHUNK_OFFSET")
    assert refused.info.metadata["committed_size"] == "2000"


async def test_a_file_with_another_hash_is_discarded(stub: ModelOptimizerStub) -> None:
    other = hashlib.sha256(b"other").hexdigest()
    refused = await refusal(upload(stub, DATA, sha256=other))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.DATA_LOSS, "CHECKSUM_MISMATCH")
    assert (await refusal(status_of(stub))).code is grpc.StatusCode.NOT_FOUND
    assert (await upload(stub, DATA)).size_bytes == len(DATA)


async def test_more_bytes_than_announced_are_refused(stub: ModelOptimizerStub) -> None:
    refused = await refusal(upload(stub, DATA, size_bytes=9_500))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.DATA_LOSS, "CHECKSUM_MISMATCH")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"upload_id": "short"}, "metadata.upload_id"),
        ({"upload_id": "../../../tmp/x"}, "metadata.upload_id"),
        ({"kind": service_pb.ARTIFACT_KIND_UNSPECIFIED}, "metadata.kind"),
        ({"kind": service_pb.ARTIFACT_KIND_RESULT}, "metadata.kind"),
        ({"kind": 42}, "metadata.kind"),
        ({"filename": ""}, "metadata.filename"),
        ({"filename": "a/.."}, "metadata.filename"),
        ({"size_bytes": 0}, "metadata.size_bytes"),
        ({"size_bytes": -5}, "metadata.size_bytes"),
        ({"sha256": "abc"}, "metadata.sha256"),
    ],
)
async def test_bad_metadata_is_refused(stub: ModelOptimizerStub, change: dict[str, Any], field: str) -> None:
    refused = await refusal(upload(stub, DATA, **change))

    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refused.fields) == [field]


async def test_folders_are_taken_off_the_filename(stub: ModelOptimizerStub) -> None:
    assert (await upload(stub, DATA, filename="..\\up/../net\n\x00.pt2")).filename == "net.pt2"


async def test_a_stream_without_metadata_is_refused(stub: ModelOptimizerStub) -> None:
    chunks = list(upload_messages(DATA))[1:]

    assert list((await refusal(stub.UploadArtifact(iter(chunks)))).fields) == ["metadata"]
    assert list((await refusal(stub.UploadArtifact(iter([])))).fields) == ["metadata"]


async def test_metadata_comes_once(stub: ModelOptimizerStub) -> None:
    messages = list(upload_messages(DATA))

    assert list((await refusal(stub.UploadArtifact(iter([messages[0], messages[0]])))).fields) == ["chunk"]


async def test_a_chunk_over_a_mebibyte_is_refused(stub: ModelOptimizerStub) -> None:
    refused = await refusal(upload(stub, bytes((1 << 20) + 1), chunk=2 << 20))

    assert list(refused.fields) == ["chunk.data"]


async def test_an_upload_id_stands_for_one_file(stub: ModelOptimizerStub) -> None:
    await break_off(stub, first(2, upload_messages(DATA)))
    await committed(stub, 1000)
    refused = await refusal(upload(stub, b"another file"))

    assert refused.code is grpc.StatusCode.ALREADY_EXISTS
    assert (await status_of(stub)).committed_size == 1000


async def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, max_model_bytes=5000)) as stub:
        refused = await refusal(upload(stub, DATA))

        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "5000 bytes" in refused.message
        assert "RetryInfo" not in refused.details
        assert await upload(stub, DATA, kind=service_pb.ARTIFACT_KIND_DATA)


async def test_a_file_that_does_not_fit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, min_free_bytes=1 << 60)) as stub:
        refused = await refusal(upload(stub, DATA))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")
    assert str(tmp_path) not in refused.message


async def test_an_upload_goes_on_after_the_disk_was_full(stub: ModelOptimizerStub) -> None:
    big = random.Random(1).randbytes(3 << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses to let any file of this process grow further, as a full disk would.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
    try:
        refused = await refusal(upload(stub, big, chunk=500_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")
    size = (await status_of(stub)).committed_size
    assert size == 2_000_000
    artifact = await stub.UploadArtifact(upload_messages(big, start=size, chunk=500_000))
    assert (await download(stub, artifact.name))[1] == big


async def test_a_call_that_is_sending_is_not_disturbed(stub: ModelOptimizerStub) -> None:
    sending = stub.UploadArtifact()
    for message in first(3, upload_messages(DATA)):
        await sending.write(message)
    await asyncio.sleep(0.1)
    refused = await refusal(upload(stub, DATA))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.ABORTED, "UPLOAD_IN_PROGRESS")


async def test_a_second_call_takes_over_from_one_that_is_silent(
    on_each: ModelOptimizerStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_SILENT_SECONDS", 0.1)
    abandoned = on_each.UploadArtifact()
    for message in first(3, upload_messages(DATA)):
        await abandoned.write(message)
    await asyncio.sleep(0.3)
    artifact = None
    while artifact is None:
        try:
            size = (await status_of(on_each)).committed_size
            artifact = await on_each.UploadArtifact(upload_messages(DATA, start=size))
        except grpc.aio.AioRpcError as exc:
            # The first call had not committed yet; INTERNAL is grpc's own, for a write that the refusal overtook.
            assert exc.code() in {grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INTERNAL}  # noqa: PT017
    refused = await refusal(abandoned)

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.ABORTED, "UPLOAD_SUPERSEDED")
    assert (await download(on_each, artifact.name))[1] == DATA


async def test_twenty_uploads_at_once(stub: ModelOptimizerStub) -> None:
    files = [random.Random(number).randbytes(50_000) for number in range(20)]
    artifacts = await asyncio.gather(
        *(upload(stub, data, upload_id=f"upload-{number:04}") for number, data in enumerate(files))
    )
    downloads = await asyncio.gather(*(download(stub, artifact.name) for artifact in artifacts))

    assert [data for _, data, _ in downloads] == files


async def test_twenty_uploads_of_the_same_file_are_one_artifact(on_each: ModelOptimizerStub) -> None:
    artifacts = await asyncio.gather(*(upload(on_each, DATA, upload_id=f"upload-{number:04}") for number in range(20)))

    assert len({artifact.name for artifact in artifacts}) == 1


async def test_unfinished_uploads_are_forgotten_one_day(tmp_path: Path, database_url: str) -> None:
    async with running(settings_for(tmp_path, database_url=database_url)) as stub:
        await break_off(stub, first(4, upload_messages(DATA)))
        await committed(stub, 3000)
        await upload(stub, b"kept", upload_id="finished-upload")
    async with running(settings_for(tmp_path, database_url=database_url, upload_retention=1e-3)) as stub:
        assert (await refusal(status_of(stub))).code is grpc.StatusCode.NOT_FOUND
        assert not list((tmp_path / "state/artifacts/uploads").glob("*.part"))
        assert (await upload(stub, b"kept")).filename == "net.pt2"


async def test_an_unknown_artifact_is_not_found(stub: ModelOptimizerStub) -> None:
    refused = await refusal(download(stub, "artifacts/unknown"))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")


@pytest.mark.parametrize("offset", [-1, len(DATA) + 1])
async def test_an_offset_outside_of_the_file_is_refused(stub: ModelOptimizerStub, offset: int) -> None:
    refused = await refusal(download(stub, (await upload(stub, DATA)).name, offset))

    assert refused.code is grpc.StatusCode.OUT_OF_RANGE


async def test_a_damaged_file_is_not_passed_off_as_good(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path)) as stub:
        artifact = await upload(stub, DATA)
        blob = next((tmp_path / "state/artifacts").rglob(artifact.sha256))
        blob.chmod(0o600)
        blob.write_bytes(b"!" + DATA[1:])
        refused = await refusal(download(stub, artifact.name))
        blob.unlink()
        gone = await refusal(download(stub, artifact.name))

    for each in (refused, gone):
        assert (each.code, each.info.reason) == (grpc.StatusCode.DATA_LOSS, "ARTIFACT_DAMAGED")


async def test_large_files_travel_in_chunks_below_the_message_limit(stub: ModelOptimizerStub) -> None:
    big = random.Random(2).randbytes(9 << 20)
    artifact = await upload(stub, big, chunk=1 << 20)
    request = service_pb.DownloadArtifactRequest(name=artifact.name)
    sizes = [len(message.chunk.data) async for message in stub.DownloadArtifact(request)]

    assert max(sizes) <= 1 << 20
    assert sum(sizes) == len(big)


async def test_the_committed_size_grows_while_bytes_arrive(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, commit_bytes=2000)) as stub:
        announcement, *chunks, rest = upload_messages(DATA, chunk=2000)
        call = stub.UploadArtifact()
        await call.write(announcement)
        for sent, message in enumerate(chunks, 1):
            await call.write(message)
            await committed(stub, 2000 * sent)
        await call.write(rest)
        await call.done_writing()

        assert (await call).size_bytes == len(DATA)


async def test_clients_that_send_the_same_file_at_once_all_get_it(on_each: ModelOptimizerStub) -> None:
    async def send_until_taken() -> str:
        while True:
            try:
                return (await upload(on_each, b"the same file", upload_id="upload-of-many")).name
            except grpc.aio.AioRpcError as exc:
                assert exc.code() is grpc.StatusCode.ABORTED, exc  # noqa: PT017 (others may well be refused)
                await asyncio.sleep(0.05)

    assert len(set(await asyncio.gather(*(send_until_taken() for _ in range(30))))) == 1
