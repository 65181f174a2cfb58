"""What is removed is gone, for its owner and from the disk; what is needed is not removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import func, select, update

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.database.clock import now
from service.database.database import Database
from service.database.tables import ArtifactRow, EventRow, JobRow, TraceRow, UploadRow
from service.server import create
from service.server.keeping import Keeper
from service.settings import ServerSettings
from service.storage.artifacts import ArtifactStore
from service.uploads.uploads import Uploads
from service.watching.meter import Unmeasured
from tests.service.callers import make_tokens, speaking
from tests.service.server_harness import (
    eventually,
    finished,
    follow,
    job_request,
    reached,
    refusal,
    running,
    settings_for,
    start_job,
    upload,
    worker_command,
)

RUNNING = 2


def delete(stub: ModelOptimizerStub, name: str, **fields: Any) -> Any:
    return stub.DeleteOptimizationJob(service_pb.DeleteOptimizationJobRequest(name=name, **fields))


def forget(stub: ModelOptimizerStub, name: str, **fields: Any) -> Any:
    return stub.DeleteArtifact(service_pb.DeleteArtifactRequest(name=name, **fields))


async def files_of(stub: ModelOptimizerStub, **fields: Any) -> service_pb.ListArtifactsResponse:
    return await stub.ListArtifacts(service_pb.ListArtifactsRequest(**fields))


def counts(settings: ServerSettings) -> dict[str, int]:
    database = Database(settings.database)
    with database.read() as session:
        found = {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
            for table in (JobRow, EventRow, ArtifactRow, TraceRow)
        }
    database.close()
    return found


async def test_a_removed_job_leaves_nothing_but_its_model(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with running(settings) as stub:
        job = await start_job(stub)
        await finished(stub, job.name)
        folder = settings.state_dir / job.name.replace("optimizationJobs", "jobs")
        await eventually(lambda: [path.name for path in folder.glob("*")] == ["log"])
        await delete(stub, job.name)
        refused = await refusal(stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=job.name)))
        left = await files_of(stub)

    assert refused.code == grpc.StatusCode.NOT_FOUND
    assert [artifact.filename for artifact in left.artifacts] == ["net.pt2"]
    assert counts(settings) == {"jobs": 0, "events": 0, "artifacts": 1, "traces": 0}
    assert not folder.exists()


async def test_a_job_that_is_not_finished_is_kept(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("sleep"))) as stub:
        running_job, waiting_job = await start_job(stub), await start_job(stub)
        refused = [await refusal(delete(stub, job.name)) for job in (running_job, waiting_job)]

    assert {(each.code, each.info.reason) for each in refused} == {(grpc.StatusCode.FAILED_PRECONDITION, "JOB_ACTIVE")}
    assert all("PreconditionFailure" in each.details for each in refused)


@pytest.mark.parametrize("state", ["running", "waiting"])
async def test_with_force_it_is_stopped_and_removed(tmp_path: Path, state: str) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("sleep"))) as stub:
        first = await start_job(stub)
        await reached(stub, first.name, lambda job: job.state == RUNNING)
        job = first if state == "running" else await start_job(stub)
        await delete(stub, job.name, force=True)
        refused = await refusal(stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=job.name)))

    assert refused.code == grpc.StatusCode.NOT_FOUND


async def test_what_is_missing_may_be_allowed_to_be(stub: ModelOptimizerStub) -> None:
    for remove, name in ((delete, "optimizationJobs/nowhere"), (forget, "artifacts/nowhere")):
        refused = await refusal(remove(stub, name))
        assert refused.code == grpc.StatusCode.NOT_FOUND
        await remove(stub, name, allow_missing=True)
    await delete(stub, "optimizationJobs/nowhere", allow_missing=True, force=True)


async def test_a_removed_job_can_be_made_again_under_its_name(stub: ModelOptimizerStub) -> None:
    for _ in range(2):
        job = await start_job(stub, optimization_job_id="again")
        done = await finished(stub, job.name)
        assert done.attempts == 1
        await delete(stub, job.name)


async def test_who_watches_a_job_that_is_removed_is_told(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"))
    async with running(settings) as stub:
        job = await start_job(stub)
        await reached(stub, job.name, lambda job: job.state == RUNNING)
        watching = asyncio.create_task(follow(stub, job.name))
        await asyncio.sleep(0.1)
        database = Database(settings.database)
        with database.write() as session:
            session.execute(JobRow.__table__.delete())  # as another server may do it
        database.close()
        refused = await refusal(watching)

    assert refused.code == grpc.StatusCode.NOT_FOUND


async def test_a_file_is_removed_unless_a_job_needs_it(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"))
    async with running(settings) as stub:
        other = await upload(stub, b"something else", upload_id="upload-else", kind=service_pb.ARTIFACT_KIND_DATA)
        job = await start_job(stub)
        model = job.spec.model.pt2_artifact
        refused = await refusal(forget(stub, model))
        await forget(stub, other.name)
        assert [artifact.name for artifact in (await files_of(stub)).artifacts] == [model]
        await delete(stub, job.name, force=True)
        await forget(stub, model)
        assert not (await files_of(stub)).artifacts

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ARTIFACT_IN_USE")


async def test_what_a_job_made_is_removed_with_it_only(stub: ModelOptimizerStub) -> None:
    job = await finished(stub, (await start_job(stub)).name)
    refused = await refusal(forget(stub, job.result.artifacts[0].name))

    assert refused.info.reason == "ARTIFACT_IN_USE"


async def test_a_removed_file_can_be_sent_again(stub: ModelOptimizerStub) -> None:
    first = await upload(stub, b"some bytes")
    await forget(stub, first.name)
    refused = await refusal(stub.GetUploadStatus(service_pb.GetUploadStatusRequest(upload_id="upload-0001")))
    again = await upload(stub, b"some bytes")

    assert refused.code == grpc.StatusCode.NOT_FOUND
    assert again.name != first.name


async def test_a_job_on_a_file_that_was_removed_is_refused(stub: ModelOptimizerStub) -> None:
    request = await job_request(stub)
    await forget(stub, request.optimization_job.spec.model.pt2_artifact)
    refused = await refusal(stub.CreateOptimizationJob(request))

    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT


async def test_files_come_in_pages_newest_first(stub: ModelOptimizerStub) -> None:
    names = [(await upload(stub, bytes([number]), upload_id=f"upload-{number:04}")).name for number in range(5)]
    found, token = [], ""
    while True:
        page = await files_of(stub, page_size=2, page_token=token)
        found += [artifact.name for artifact in page.artifacts]
        token = page.next_page_token
        if not token:
            break

    assert found == names[::-1]


async def test_others_jobs_and_files_do_not_exist(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    tokens = make_tokens(settings, "alice", "bob")
    async with running(settings) as stub:
        alice, bob = (speaking(stub, token) for token in tokens)
        job = await finished(alice, (await start_job(alice)).name)
        refused = [
            await refusal(delete(bob, job.name)),
            await refusal(delete(bob, job.name, force=True)),
            await refusal(forget(bob, job.spec.model.pt2_artifact)),
        ]
        assert not (await files_of(bob)).artifacts
        await delete(alice, job.name)

    assert {each.code for each in refused} == {grpc.StatusCode.NOT_FOUND}


@asynccontextmanager
async def tidied(settings: ServerSettings) -> AsyncIterator[Keeper]:
    """Clears away for a server that does not run."""
    database = Database(settings.database)
    artifacts = ArtifactStore(database, settings.storage)
    uploads = Uploads(database, artifacts, settings)
    try:
        yield Keeper(settings, database, artifacts.storage, uploads, Unmeasured())
    finally:
        database.close()


def age(settings: ServerSettings, days: float) -> None:
    """Makes everything older than it is."""
    database = Database(settings.database)
    earlier = now() - timedelta(days=days)
    with database.write() as session:
        session.execute(update(JobRow).values(create_time=earlier, end_time=earlier))
        session.execute(update(ArtifactRow).values(create_time=earlier))
        session.execute(update(UploadRow).values(update_time=earlier))
    database.close()


DAY = 86400.0


async def test_jobs_are_removed_when_their_time_is_over(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, job_retention=10 * DAY, collect_grace=0)
    async with running(settings) as stub:
        await finished(stub, (await start_job(stub)).name)
    async with tidied(settings) as keeper:
        age(settings, 9)
        keeper.tidy()
        assert counts(settings)["jobs"] == 1
        age(settings, 11)
        keeper.tidy()

    assert counts(settings) == {"jobs": 0, "events": 0, "artifacts": 1, "traces": 0}
    assert not list((settings.state_dir / "jobs").glob("*"))
    assert len([path for path in (settings.state_dir / "artifacts").rglob("??/*") if path.is_file()]) == 1


async def test_files_are_removed_when_no_job_needed_them_for_so_long(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, artifact_retention=10 * DAY, job_retention=1000 * DAY)
    async with running(settings) as stub:
        await finished(stub, (await start_job(stub)).name)
        results = counts(settings)["artifacts"] - 1
    async with tidied(settings) as keeper:
        database = Database(settings.database)
        age(settings, 11)
        with database.write() as session:  # but it was sent again yesterday
            session.execute(update(UploadRow).values(update_time=now() - timedelta(days=1)))
        keeper.tidy()
        assert counts(settings)["artifacts"] == results + 1
        age(settings, 11)
        with database.write() as session:  # but the job ended yesterday
            session.execute(update(JobRow).values(end_time=now() - timedelta(days=1)))
        keeper.tidy()
        assert counts(settings)["artifacts"] == results + 1
        age(settings, 11)
        keeper.tidy()
        database.close()

    assert counts(settings)["artifacts"] == results


async def test_without_a_retention_everything_is_kept(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with running(settings) as stub:
        await finished(stub, (await start_job(stub)).name)
    before = counts(settings)
    async with tidied(settings) as keeper:
        age(settings, 10_000)
        keeper.tidy()

    assert counts(settings) == before


async def test_a_server_clears_away_while_it_runs(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, job_retention=0.2)
    server = create(settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = ModelOptimizerStub(channel)
            await finished(stub, (await start_job(stub)).name)
            await eventually(lambda: counts(settings)["jobs"] == 0)
    finally:
        await server.stop()
