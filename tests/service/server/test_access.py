"""Who may call what, and who sees whose jobs and files."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2
from google.protobuf.descriptor import ServiceDescriptor
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.access.principal import OPERATOR_FILE, Scope
from service.server import access, create
from service.settings import ServerSettings
from tests.service.callers import make_admin, make_tokens, speaking
from tests.service.server_harness import (
    Refusal,
    finished,
    follow,
    job_request,
    reached,
    refusal,
    running,
    settings_for,
    start_job,
    upload,
    upload_messages,
    worker_command,
)

State = job_pb.OptimizationJob.State
SCOPES = access.SCOPES["shoal.v1.ModelOptimizer"]
SERVICE = service_pb.DESCRIPTOR.services_by_name["ModelOptimizer"]


@dataclass(frozen=True)
class Callers:
    """Stubs of two who may use the service, of one who may do everything, and of one whom nobody knows."""

    alice: ModelOptimizerStub
    bob: ModelOptimizerStub
    admin: ModelOptimizerStub
    nobody: ModelOptimizerStub


@asynccontextmanager
async def callers(settings: ServerSettings) -> AsyncIterator[Callers]:
    alice, bob = make_tokens(settings, "alice", "bob")
    admin = make_admin(settings)
    async with running(settings) as stub:
        yield Callers(speaking(stub, alice), speaking(stub, bob), speaking(stub, admin), stub)


@pytest.fixture
async def known(tmp_path: Path) -> AsyncIterator[Callers]:
    async with callers(settings_for(tmp_path)) as found:
        yield found


@pytest.mark.parametrize("service", [SERVICE, operations_pb2.DESCRIPTOR.services_by_name["Operations"]])
def test_every_method_has_a_scope(service: ServiceDescriptor) -> None:
    assert set(access.SCOPES[service.full_name]) == {method.name for method in service.methods}


async def test_every_service_is_guarded_or_said_not_to_be(tmp_path: Path) -> None:
    async with served(settings_for(tmp_path)) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        answer = await anext(aiter(call))
    there = {one.name for one in answer.list_services_response.service}
    assert there - access.UNGUARDED <= access.SCOPES.keys()
    assert there >= access.UNGUARDED


def get(stub: ModelOptimizerStub, name: str) -> Awaitable[job_pb.OptimizationJob]:
    return stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=name))


def cancel(stub: ModelOptimizerStub, name: str) -> Awaitable[job_pb.OptimizationJob]:
    return stub.CancelOptimizationJob(service_pb.CancelOptimizationJobRequest(name=name))


async def watch(stub: ModelOptimizerStub, name: str) -> None:
    async for _ in stub.WatchOptimizationJob(service_pb.WatchOptimizationJobRequest(name=name)):
        pass


async def download(stub: ModelOptimizerStub, name: str) -> bytes:
    request = service_pb.DownloadArtifactRequest(name=name)
    return b"".join([message.chunk.data async for message in stub.DownloadArtifact(request)])


async def names(stub: ModelOptimizerStub) -> list[str]:
    page = await stub.ListOptimizationJobs(service_pb.ListOptimizationJobsRequest())
    return [job.name for job in page.optimization_jobs]


EMPTY: dict[str, Any] = {
    method.name: getattr(service_pb, method.input_type.name)() for method in SERVICE.methods
}  # fmt: skip


async def call_empty(stub: ModelOptimizerStub, method: str) -> None:
    """Calls a method with an empty request, which gets no further than to be refused for that."""
    call = getattr(stub, method)
    if SERVICE.methods_by_name[method].client_streaming:
        await call(iter([EMPTY[method]]))
    elif SERVICE.methods_by_name[method].server_streaming:
        async for _ in call(EMPTY[method]):
            pass
    else:
        await call(EMPTY[method])


@pytest.mark.parametrize("method", [method.name for method in SERVICE.methods])
async def test_who_is_unknown_may_call_nothing(known: Callers, method: str) -> None:
    refused = await refusal(call_empty(known.nobody, method))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert "`shoal tokens add NAME`" in refused.message


async def code_of(call: Awaitable[None]) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as exc:
        return exc.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("scope", sorted({Scope.JOBS_READ, Scope.JOBS_WRITE, Scope.ARTIFACTS_WRITE}))
async def test_a_token_allows_what_its_scope_says_and_nothing_else(tmp_path: Path, scope: Scope) -> None:
    settings = settings_for(tmp_path)
    (token,) = make_tokens(settings, "alice", scopes=frozenset({scope}))
    async with running(settings) as stub:
        codes = {method: await code_of(call_empty(speaking(stub, token), method)) for method in SCOPES}

    refused = {method for method, code in codes.items() if code is grpc.StatusCode.PERMISSION_DENIED}
    assert refused == {method for method, needed in SCOPES.items() if needed is not scope}
    assert grpc.StatusCode.UNAUTHENTICATED not in codes.values()


async def test_what_is_forbidden_is_named(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    (token,) = make_tokens(settings, "reader", scopes=frozenset({Scope.JOBS_READ}))
    async with running(settings) as stub:
        refused = await refusal(cancel(speaking(stub, token), "optimizationJobs/some"))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "FORBIDDEN")
    assert "takes the scope jobs:write" in refused.message


async def test_health_answers_everybody(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    make_tokens(settings, "alice")
    async with served(settings) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE.full_name)
        answer = await health_pb2_grpc.HealthStub(channel).Check(request)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("wanted", [True, False])
async def test_reflection_can_be_switched_off(tmp_path: Path, wanted: bool) -> None:
    async with served(settings_for(tmp_path, reflection=wanted)) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        if wanted:
            answer = await anext(aiter(call))
            assert SERVICE.full_name in [one.name for one in answer.list_services_response.service]
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(aiter(call))
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@asynccontextmanager
async def served(settings: ServerSettings) -> AsyncIterator[grpc.aio.Channel]:
    server = create(settings)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.start()}") as channel:
            yield channel
    finally:
        await server.stop()


async def test_jobs_and_files_are_their_owners(known: Callers) -> None:
    job = await finished(known.alice, (await start_job(known.alice)).name)
    file = job.result.artifacts[0].name

    assert (await names(known.alice), await names(known.bob)) == ([job.name], [])
    assert await get(known.alice, job.name) == job
    assert await download(known.alice, file)
    assert await names(known.admin) == [job.name]
    assert await get(known.admin, job.name) == job
    assert await download(known.admin, file)


@pytest.mark.parametrize("call", [get, cancel, watch])
async def test_anothers_job_is_refused_in_the_words_for_none(
    known: Callers, call: Callable[[ModelOptimizerStub, str], Awaitable[Any]]
) -> None:
    job = await start_job(known.alice, optimization_job_id="secret")
    there = await refusal(call(known.bob, job.name))
    missing = await refusal(call(known.bob, "optimizationJobs/absent"))

    assert same(there, missing, "secret", "absent")
    assert (await finished(known.alice, job.name)).state == State.STATE_SUCCEEDED  # nor did anything happen to it


async def test_anothers_file_is_refused_in_the_words_for_none(known: Callers) -> None:
    artifact = await upload(known.alice, b"a model")
    own, absent = artifact.name.rpartition("/")[2], "0" * 20
    there = await refusal(download(known.bob, artifact.name))
    missing = await refusal(download(known.bob, f"artifacts/{absent}"))
    assert same(there, missing, own, absent)

    request = await job_request(known.bob)
    request.optimization_job.spec.model.pt2_artifact = artifact.name
    there = await refusal(known.bob.CreateOptimizationJob(request))
    request.optimization_job.spec.model.pt2_artifact = f"artifacts/{absent}"
    missing = await refusal(known.bob.CreateOptimizationJob(request))
    assert same(there, missing, own, absent)

    analysis = [
        service_pb.AnalyzeModelRequest(model={"pt2_artifact": f"artifacts/{name}"}, skip_floor=True)
        for name in (own, absent)
    ]
    there, missing = [await refusal(known.bob.AnalyzeModel(request)) for request in analysis]
    assert same(there, missing, own, absent)


def same(there: Refusal, missing: Refusal, own: str, absent: str) -> bool:
    """Whether two refusals differ in nothing but the names that were asked for, which are of the same length."""
    told = [
        (one.code, one.message.replace(name, "X"), str(one.details).replace(name, "X"), dict(one.info.metadata))
        for one, name in ((there, own), (missing, absent))
    ]
    return told[0] == told[1]


async def test_one_content_is_stored_once_and_each_has_an_artifact(known: Callers, tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    mine = await upload(known.alice, data)
    theirs = await upload(known.bob, data)

    assert mine.name != theirs.name
    assert await download(known.bob, theirs.name) == data
    blobs = [path for path in (tmp_path / "state/artifacts").rglob("*") if path.is_file() and path.name != ".shoal"]
    assert [path.name for path in blobs] == [mine.sha256]


async def test_the_hash_of_anothers_file_is_no_way_to_it(known: Callers) -> None:
    data = b"what only alice has" * 100
    await upload(known.alice, data)
    announced = list(upload_messages(data))[:1]
    refused = await refusal(known.bob.UploadArtifact(iter(announced)))
    unknown = await refusal(known.bob.GetUploadStatus(service_pb.GetUploadStatusRequest(upload_id="upload-9999")))

    # Just as if nobody had it: all of the bytes are asked for.
    assert (refused.info.reason, refused.info.metadata["committed_size"]) == ("UPLOAD_INCOMPLETE", "0")
    assert unknown.code is grpc.StatusCode.NOT_FOUND


async def test_upload_ids_and_request_ids_are_each_callers_own(known: Callers) -> None:
    await upload(known.alice, b"one file", upload_id="upload-same")
    status = service_pb.GetUploadStatusRequest(upload_id="upload-same")
    assert (await refusal(known.bob.GetUploadStatus(status))).code is grpc.StatusCode.NOT_FOUND
    await upload(known.bob, b"another file", upload_id="upload-same")

    request_id = str(uuid.uuid4())
    jobs = [await start_job(stub, request_id=request_id) for stub in (known.alice, known.bob)]
    again = await start_job(known.bob, request_id=request_id)
    assert jobs[0].name != jobs[1].name == again.name


async def test_a_job_id_is_taken_for_everybody(known: Callers) -> None:
    await start_job(known.alice, optimization_job_id="nightly")
    refused = await refusal(start_job(known.bob, optimization_job_id="nightly"))

    assert refused.code is grpc.StatusCode.ALREADY_EXISTS
    assert "alice" not in str(refused.details) + refused.message


async def test_without_any_token_everything_is_open_as_ever(stub: ModelOptimizerStub) -> None:
    assert (await finished(stub, (await start_job(stub)).name)).state == State.STATE_SUCCEEDED


async def test_a_server_that_others_can_reach_asks_for_a_token_even_if_there_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(tmp_path, address="0.0.0.0:0", insecure_remote=True)
    async with served(settings) as channel:
        stub = ModelOptimizerStub(channel)
        refused = await refusal(names(stub))
        (token,) = make_tokens(settings, "alice")
        assert await names(speaking(stub, token)) == []

    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert "there are no tokens, so all calls will be refused" in caplog.text
    assert "without TLS" in caplog.text


async def test_a_removed_token_is_worth_nothing_at_once(tmp_path: Path) -> None:
    from service.access.tokens import TokenStore
    from service.database.database import Database

    settings = settings_for(tmp_path)
    token, _ = make_tokens(settings, "alice", "bob")
    async with running(settings) as stub:
        assert await names(speaking(stub, token)) == []
        database = Database(settings.database)
        TokenStore(database).remove("alice")
        database.close()
        refused = await refusal(names(speaking(stub, token)))
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED


async def test_the_operator_sees_everything(known: Callers, tmp_path: Path) -> None:
    job = await start_job(known.alice)
    operator = speaking(known.nobody, (tmp_path / "state" / OPERATOR_FILE).read_text())
    assert await names(operator) == [job.name]


async def test_too_many_calls_are_refused_until_it_is_time_again(tmp_path: Path) -> None:
    async with callers(settings_for(tmp_path, principal_burst=2, principal_calls_per_second=0.01)) as known:
        await names(known.alice)
        await names(known.alice)
        refused = await refusal(names(known.alice))
        assert await names(known.bob) == []  # who is not kept from calling

    retry = error_details_pb2.RetryInfo()
    assert refused.details["RetryInfo"].Unpack(retry)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    assert 90 < retry.retry_delay.seconds <= 100


async def test_one_principal_cannot_fill_the_queue(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, principal_queue_limit=2, worker_command=worker_command("sleep"))
    async with callers(settings) as known:
        first = await start_job(known.alice)
        await reached(known.alice, first.name, lambda job: job.state == State.STATE_RUNNING)
        for _ in range(2):
            await start_job(known.alice)
        refused = await refusal(start_job(known.alice))
        await start_job(known.bob)

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    assert "RetryInfo" in refused.details
    assert "2 of your jobs wait already" in refused.message


async def test_stored_bytes_have_a_limit_for_each(tmp_path: Path, database_url: str) -> None:
    settings = settings_for(tmp_path, principal_stored_bytes=10_000, database_url=database_url)
    async with callers(settings) as known:
        await upload(known.alice, b"a" * 6_000, upload_id="upload-0001")
        refused = await refusal(upload(known.alice, b"b" * 6_000, upload_id="upload-0002"))
        await upload(known.alice, b"a" * 6_000, upload_id="upload-0003")  # the same bytes are there already
        await upload(known.bob, b"b" * 6_000)

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "your files have 6000 bytes here" in refused.message


async def test_unfinished_uploads_have_a_limit_for_each(tmp_path: Path, database_url: str) -> None:
    settings = settings_for(tmp_path, principal_uploads=1, database_url=database_url)
    async with callers(settings) as known:
        half = list(upload_messages(b"a" * 5_000, upload_id="upload-0001"))[:2]
        await refusal(known.alice.UploadArtifact(iter(half)))
        refused = await refusal(upload(known.alice, b"b" * 5_000, upload_id="upload-0002"))
        await upload(known.bob, b"b" * 5_000)
        await known.alice.UploadArtifact(upload_messages(b"a" * 5_000, upload_id="upload-0001", start=1_000))
        await upload(known.alice, b"b" * 5_000, upload_id="upload-0002")

    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1 of your uploads are unfinished" in refused.message


async def test_half_finished_uploads_expire_while_the_server_runs(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, upload_retention=0.4)) as stub:
        half = list(upload_messages(b"a" * 5_000))[:2]
        await refusal(stub.UploadArtifact(iter(half)))
        assert len(list((tmp_path / "state/artifacts/uploads").iterdir())) == 1
        async with asyncio.timeout(10):
            while list((tmp_path / "state/artifacts/uploads").iterdir()):  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.02)
        status = service_pb.GetUploadStatusRequest(upload_id="upload-0001")
        assert (await refusal(stub.GetUploadStatus(status))).code is grpc.StatusCode.NOT_FOUND


async def test_secrets_are_nowhere_in_logs_and_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = settings_for(tmp_path)
    (token,) = make_tokens(settings, "alice")
    wrong, answers = "shoal-token-" + "w" * 43, []
    async with running(settings) as stub:
        job = await start_job(speaking(stub, token))
        answers.append(str(await follow(speaking(stub, token), job.name)))
        bad = (wrong, f"{token}x", token.upper())
        answers += [str((await refusal(names(speaking(stub, one)))).details) for one in bad]
        operator = (tmp_path / "state" / OPERATOR_FILE).read_text()
        await names(speaking(stub, operator))
        (tmp_path / "state" / OPERATOR_FILE).unlink()
    kept = [path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file() and path.name != ".shoal"]

    assert any(b"job" in content for content in kept)
    for secret in (token, wrong, operator, token.upper()):
        assert secret not in caplog.text
        assert not any(secret in answer for answer in answers)
        assert not any(secret.encode() in content for content in kept)
