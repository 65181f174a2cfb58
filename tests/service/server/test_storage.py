"""Servers whose files lie in S3 or in a folder that several share, and what they do while it is away (for real)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.database.database import Database
from service.database.tables import UploadRow
from service.server import create
from service.settings import ServerSettings
from tests.service.s3 import S3
from tests.service.server_harness import (
    eventually,
    finished,
    follow,
    job_request,
    refusal,
    running,
    settings_for,
    start_job,
    upload,
    upload_messages,
    worker_command,
)

State = job_pb.OptimizationJob.State
DATA = random.Random(3).randbytes(10_500)
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Place:
    """Storage that can be taken away and brought back, with all that was in it."""

    url: str
    take_away: Callable[[], object]
    bring_back: Callable[[], object]
    names: Callable[[], list[str]]


def in_folder(tmp_path: Path) -> Place:
    folder, hidden = tmp_path / "shared", tmp_path / "hidden"

    def names() -> list[str]:
        found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        return [name for name in found if not name.startswith(".")]

    return Place(f"file://{folder}", partial(folder.rename, hidden), partial(hidden.rename, folder), names)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return in_folder(tmp_path)
    s3: S3 = request.getfixturevalue("s3")
    return Place(s3.url, s3.stop, s3.start, s3.names)


EACH_KIND = pytest.mark.parametrize(
    ("place", "database_url"), [("folder", "sqlite"), ("s3", "sqlite"), ("folder", "postgresql")], indirect=True
)
"""Where what is up to the database and what is up to the storage meet: each kind of both, not all pairs."""


def settings_of(tmp_path: Path, place: Place, name: str = "one", **changes: Any) -> ServerSettings:
    """A server's settings; all servers of a test share database and storage, and nothing else."""
    shared = {"database_url": f"sqlite:///{tmp_path / 'shared.db'}", "storage_url": place.url}
    return settings_for(tmp_path / name, **(shared | changes))


@asynccontextmanager
async def watched(settings: ServerSettings) -> AsyncIterator[tuple[ModelOptimizerStub, health_pb2_grpc.HealthStub]]:
    server = create(settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield ModelOptimizerStub(channel), health_pb2_grpc.HealthStub(channel)
    finally:
        await server.stop()


async def becomes(health: health_pb2_grpc.HealthStub, status: int) -> None:
    request = health_pb2.HealthCheckRequest(service="shoal.v1.ModelOptimizer")
    async with asyncio.timeout(60):
        while (await health.Check(request)).status != status:  # noqa: ASYNC110 (nobody sets an event)
            await asyncio.sleep(0.05)


async def download(stub: ModelOptimizerStub, name: str, offset: int = 0) -> bytes:
    request = service_pb.DownloadArtifactRequest(name=name, offset=offset)
    return b"".join([message.chunk.data async for message in stub.DownloadArtifact(request)])


async def committed(stub: ModelOptimizerStub) -> int:
    request = service_pb.GetUploadStatusRequest(upload_id="upload-0001")
    try:
        return (await stub.GetUploadStatus(request)).committed_size
    except grpc.aio.AioRpcError as exc:
        assert exc.code() is grpc.StatusCode.NOT_FOUND  # noqa: PT017 (not announced yet)
        return 0


def first(count: int, **changes: Any) -> Iterator[service_pb.UploadArtifactRequest]:
    return (message for message, _ in zip(upload_messages(DATA, **changes), range(count), strict=False))


async def test_a_whole_job_over_s3(tmp_path: Path, s3: S3) -> None:
    place = Place(s3.url, s3.stop, s3.start, s3.names)
    async with running(settings_of(tmp_path, place)) as stub:
        job = await finished(stub, (await start_job(stub)).name)
        sizes = {each.filename: len(await download(stub, each.name)) for each in job.result.artifacts}

    assert job.state == State.STATE_SUCCEEDED
    assert sizes == {each.filename: each.size_bytes for each in job.result.artifacts}
    assert len(s3.names()) == len(sizes) + 1  # and the model
    assert not (tmp_path / "one/state/artifacts").exists()


@EACH_KIND
async def test_an_upload_goes_on_through_another_server(tmp_path: Path, place: Place, database_url: str) -> None:
    one = settings_of(tmp_path, place, commit_bytes=2000, database_url=database_url)
    two = settings_of(tmp_path, place, "two", database_url=database_url)
    async with running(one) as here, running(two) as there:
        await refusal(here.UploadArtifact(first(6)))
        assert await committed(there) == 5000
        await refusal(there.UploadArtifact(first(3, start=5000)))
        assert await committed(here) == 7000
        artifact = await here.UploadArtifact(upload_messages(DATA, start=7000))
        assert await download(there, artifact.name) == DATA
        assert await download(there, artifact.name, 9_999) == DATA[9_999:]
    assert [name for name in place.names() if name.startswith("uploads/")] == []


@EACH_KIND
async def test_who_was_taken_over_from_by_another_server_changes_nothing_any_more(
    tmp_path: Path, place: Place, database_url: str
) -> None:
    one = settings_of(tmp_path, place, commit_bytes=4000, database_url=database_url)
    two = settings_of(tmp_path, place, "two", database_url=database_url)
    async with running(one) as here, running(two) as there:
        left = here.UploadArtifact()
        messages = list(upload_messages(DATA))
        for message in messages[:3]:
            await left.write(message)
        await asyncio.sleep(0.2)
        await refusal(there.UploadArtifact(first(6)))
        for message in messages[3:]:
            try:
                await left.write(message)
            except grpc.aio.AioRpcError:
                break
        superseded = await refusal(left)
        assert await committed(there) == 5000
        artifact = await there.UploadArtifact(upload_messages(DATA, start=5000))
        assert await download(here, artifact.name) == DATA

    assert (superseded.code, superseded.info.reason) == (grpc.StatusCode.ABORTED, "UPLOAD_SUPERSEDED")
    assert superseded.info.metadata["committed_size"] == "5000"


async def test_a_piece_that_is_lost_is_asked_for_again(tmp_path: Path, s3: S3) -> None:
    place = Place(s3.url, s3.stop, s3.start, s3.names)
    async with running(settings_of(tmp_path, place, commit_bytes=3000)) as stub:
        await refusal(stub.UploadArtifact(first(10)))
        lost = next(name for name in s3.names() if ".3000-" in name)
        s3.client.delete_object(Bucket=s3.bucket, Key=f"shoal/{lost}")
        refused = await refusal(stub.UploadArtifact(upload_messages(DATA, start=9000)))
        assert (refused.info.reason, refused.info.metadata["committed_size"]) == ("UPLOAD_INCOMPLETE", "3000")
        artifact = await stub.UploadArtifact(upload_messages(DATA, start=3000))
        assert await download(stub, artifact.name) == DATA


async def test_pieces_of_a_forgotten_upload_go(tmp_path: Path, place: Place) -> None:
    async with running(settings_of(tmp_path, place)) as stub:
        await refusal(stub.UploadArtifact(first(4)))
        assert len(place.names()) == 1
    async with running(settings_of(tmp_path, place, upload_retention=1e-3)):
        assert place.names() == []


async def test_bytes_of_another_hash_are_discarded_in_s3_too(tmp_path: Path, s3: S3) -> None:
    place = Place(s3.url, s3.stop, s3.start, s3.names)
    async with running(settings_of(tmp_path, place)) as stub:
        refused = await refusal(upload(stub, DATA, sha256="ab" * 32))

    assert refused.info.reason == "CHECKSUM_MISMATCH"
    assert s3.names() == []


async def test_a_damaged_object_is_told_and_can_be_sent_again(tmp_path: Path, s3: S3) -> None:
    place = Place(s3.url, s3.stop, s3.start, s3.names)
    async with running(settings_of(tmp_path, place)) as stub:
        artifact = await upload(stub, b"a model")
        (key,) = s3.names()
        request = await job_request(stub)
        s3.client.put_object(Bucket=s3.bucket, Key=f"shoal/{key}", Body=b"a m0del")
        refused = await refusal(download(stub, artifact.name))
        job = await finished(stub, (await stub.CreateOptimizationJob(request)).name)
        s3.client.delete_object(Bucket=s3.bucket, Key=f"shoal/{key}")
        again = await upload(stub, b"a model", upload_id="upload-0002")
        assert await download(stub, again.name) == b"a model"

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.DATA_LOSS, "ARTIFACT_DAMAGED")
    assert (job.state, job.error.reason) == (State.STATE_FAILED, "ARTIFACT_DAMAGED")
    assert again == artifact


async def test_storage_that_is_away_is_told_and_so_is_its_return(tmp_path: Path, place: Place) -> None:
    async with watched(settings_of(tmp_path, place, readiness_interval=0.2)) as (stub, health):
        artifact = await upload(stub, DATA)
        request = await job_request(stub)
        await becomes(health, SERVING)
        place.take_away()
        refusals = [
            await refusal(upload(stub, DATA + b"!", upload_id="upload-0002")),
            await refusal(download(stub, artifact.name)),
            await refusal(stub.CreateOptimizationJob(request)),
        ]
        await becomes(health, NOT_SERVING)
        place.bring_back()
        await becomes(health, SERVING)
        assert await download(stub, artifact.name) == DATA
        await upload(stub, DATA + b"!", upload_id="upload-0002")

    for refused in refusals:
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "STORAGE_UNAVAILABLE")
        assert "RetryInfo" in refused.details
        assert str(tmp_path) not in refused.message
        assert "127.0.0.1" not in refused.message


async def test_an_upload_goes_on_after_the_storage_was_away(tmp_path: Path, place: Place) -> None:
    async with running(settings_of(tmp_path, place, commit_bytes=3000)) as stub:
        call = stub.UploadArtifact()
        messages = list(upload_messages(DATA))
        for message in messages[:5]:
            await call.write(message)
        async with asyncio.timeout(10):
            while await committed(stub) < 3000:  # noqa: ASYNC110 (it is the server that knows)
                await asyncio.sleep(0.01)
        place.take_away()
        for message in messages[5:]:
            try:
                await call.write(message)
            except grpc.aio.AioRpcError:
                break
        refused = await refusal(call)
        place.bring_back()
        artifact = await stub.UploadArtifact(upload_messages(DATA, start=await committed(stub)))
        assert await download(stub, artifact.name) == DATA

    assert refused.info.reason == "STORAGE_UNAVAILABLE"


async def waits(stub: ModelOptimizerStub, name: str) -> None:
    async with asyncio.timeout(60):
        while True:
            job = await stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=name))
            if "waiting for the server's storage" in job.progress.message:
                return
            assert job.state in {State.STATE_RUNNING, State.STATE_QUEUED}
            await asyncio.sleep(0.05)


async def test_a_job_that_ends_while_the_storage_is_away_hands_its_result_in_later(
    tmp_path: Path, place: Place
) -> None:
    release = tmp_path / "release"
    async with running(settings_of(tmp_path, place, worker_command=worker_command("held", str(release)))) as stub:
        name = (await start_job(stub)).name
        await at_work(stub, name)
        place.take_away()
        release.touch()
        await waits(stub, name)
        place.bring_back()
        job = await finished(stub, name)

    assert (job.state, job.attempts) == (State.STATE_SUCCEEDED, 1)


async def test_a_job_whose_worker_failed_for_want_of_its_files_starts_again(tmp_path: Path) -> None:
    place, release = in_folder(tmp_path), tmp_path / "release"
    command = worker_command("held", str(release), "late")
    async with running(settings_of(tmp_path, place, worker_command=command)) as stub:
        name = (await start_job(stub)).name
        await at_work(stub, name)
        place.take_away()
        release.touch()
        await waits(stub, name)
        place.bring_back()
        job = await finished(stub, name)

    assert (job.state, job.attempts) == (State.STATE_SUCCEEDED, 2)


async def at_work(stub: ModelOptimizerStub, name: str) -> None:
    async with asyncio.timeout(20):
        request = service_pb.GetOptimizationJobRequest(name=name)
        while (await stub.GetOptimizationJob(request)).progress.phase != "tune":  # noqa: ASYNC110 (the server knows)
            await asyncio.sleep(0.02)


async def test_a_job_that_starts_while_the_storage_is_away_waits(tmp_path: Path, place: Place) -> None:
    release = tmp_path / "release"
    async with running(settings_of(tmp_path, place, worker_command=worker_command("held", str(release)))) as stub:
        before, name = (await start_job(stub)).name, (await start_job(stub)).name
        await at_work(stub, before)
        place.take_away()
        await stub.CancelOptimizationJob(service_pb.CancelOptimizationJobRequest(name=before))
        await waits(stub, name)
        place.bring_back()
        release.touch()
        job = await finished(stub, name)

    assert (job.state, job.attempts) == (State.STATE_SUCCEEDED, 1)


async def test_a_server_that_stops_while_a_result_waits_leaves_the_job_to_the_next(
    tmp_path: Path, place: Place
) -> None:
    release = tmp_path / "release"
    settings = settings_of(tmp_path, place, worker_command=worker_command("held", str(release)))
    async with running(settings) as stub:
        name = (await start_job(stub)).name
        await at_work(stub, name)
        place.take_away()
        release.touch()
        await waits(stub, name)
    place.bring_back()
    async with running(settings) as stub:
        job = await finished(stub, name)
        states = [event.snapshot.state for event in await follow(stub, name) if event.HasField("snapshot")]

    assert (job.state, job.attempts) == (State.STATE_SUCCEEDED, 2)
    assert states[-4:] == [State.STATE_RUNNING, State.STATE_QUEUED, State.STATE_RUNNING, State.STATE_SUCCEEDED]


async def test_a_job_that_waits_for_storage_can_be_cancelled(tmp_path: Path) -> None:
    place, release = in_folder(tmp_path), tmp_path / "release"
    async with running(settings_of(tmp_path, place, worker_command=worker_command("held", str(release)))) as stub:
        name = (await start_job(stub)).name
        await at_work(stub, name)
        place.take_away()
        release.touch()
        await waits(stub, name)
        await stub.CancelOptimizationJob(service_pb.CancelOptimizationJobRequest(name=name))
        assert (await finished(stub, name)).state == State.STATE_CANCELLED
        place.bring_back()


async def test_a_folder_that_was_emptied_is_not_begun_anew(tmp_path: Path) -> None:
    place = in_folder(tmp_path)
    async with running(settings_of(tmp_path, place)) as stub:
        place.take_away()
        (tmp_path / "shared").mkdir()  # as where nothing is mounted any more
        assert (await refusal(upload(stub, DATA))).info.reason == "STORAGE_UNAVAILABLE"
        assert list((tmp_path / "shared").iterdir()) == []


async def test_a_finished_upload_leaves_no_pieces_in_the_database(tmp_path: Path, place: Place) -> None:
    settings = settings_of(tmp_path, place, commit_bytes=1000)
    async with running(settings) as stub:
        await upload(stub, DATA)
    database = Database(settings.database)
    with database.read() as session:
        assert session.connection().exec_driver_sql("select count(*) from upload_pieces").scalar() == 0
        assert session.query(UploadRow).one().committed_size == len(DATA)
    database.close()
    await eventually(lambda: len(place.names()) == 1)
