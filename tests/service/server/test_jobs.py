from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.client import Client
from service.server import create
from tests.service.server_harness import (
    finished,
    gone,
    job_request,
    reached,
    refusal,
    running,
    settings_for,
    start_job,
    upload,
    worker_command,
)
from tests.service.server_process import ServerProcess

State = job_pb.OptimizationJob.State


async def get(stub: ModelOptimizerStub, name: str) -> job_pb.OptimizationJob:
    return await stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=name))


async def cancel(stub: ModelOptimizerStub, name: str) -> job_pb.OptimizationJob:
    return await stub.CancelOptimizationJob(service_pb.CancelOptimizationJobRequest(name=name))


async def jobs_of(stub: ModelOptimizerStub, **fields: Any) -> service_pb.ListOptimizationJobsResponse:
    return await stub.ListOptimizationJobs(service_pb.ListOptimizationJobsRequest(**fields))


async def test_a_job_runs_to_its_result(stub: ModelOptimizerStub) -> None:
    job = await finished(stub, (await start_job(stub)).name)

    assert job.state == State.STATE_SUCCEEDED
    assert job.result.outcome == job_pb.OptimizationResult.OUTCOME_BUDGET_MET
    assert job.result.speedup == 2.1
    assert job.result.baseline.latency.p50_ms == 4.0
    assert job.result.result.accuracy.top1 == 0.9
    assert job.result.floor_ms == 1.0
    assert job.result.candidates[0].chosen
    assert {link.filename for link in job.result.artifacts} == {
        "model.onnx", "baseline.onnx", "plan.json", "report.json", "report.html", "manifest.json",
    }  # fmt: skip
    assert job.attempts == 1
    assert job.create_time.ToNanoseconds() <= job.start_time.ToNanoseconds() <= job.end_time.ToNanoseconds()
    assert job == await get(stub, job.name)


async def test_a_job_states_the_defaults_that_it_runs_with(stub: ModelOptimizerStub) -> None:
    spec = (await start_job(stub)).spec

    assert (spec.budget.percentile, spec.budget.batch, spec.target.threads) == (50, 1, 1)
    assert spec.target.runtime == "onnxruntime"
    assert spec.strategy.name == "layerfit"
    assert spec.time_limit.seconds == 3600


async def test_only_spec_and_display_name_are_read(stub: ModelOptimizerStub) -> None:
    request = await job_request(stub, optimization_job_id="my-job")
    request.optimization_job.MergeFrom(
        job_pb.OptimizationJob(name="optimizationJobs/other", display_name="mine", state=State.STATE_SUCCEEDED)
    )
    job = await stub.CreateOptimizationJob(request)

    assert (job.name, job.display_name) == ("optimizationJobs/my-job", "mine")
    assert job.state == State.STATE_QUEUED


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"budget": {"fraction": 0.0}}, "spec.budget.fraction"),
        ({"budget": {"fraction": 1.0}}, "spec.budget.fraction"),
        ({"budget": {"fraction": float("nan")}}, "spec.budget.fraction"),
        ({"budget": {"latency_ms": 0.0}}, "spec.budget.latency_ms"),
        ({"budget": {}}, "spec.budget"),
        ({"budget": {"fraction": 0.5, "percentile": 0.0}}, "spec.budget.percentile"),
        ({"budget": {"fraction": 0.5, "batch": 0}}, "spec.budget.batch"),
        ({"model": {}}, "spec.model"),
        ({"model": {"pt2_artifact": "../etc/passwd"}}, "spec.model.pt2_artifact"),
        ({"model": {"pt2_artifact": "artifacts/unknown"}}, "spec.model.pt2_artifact"),
        ({"model": {"named": {"architecture": "os:system"}}}, "spec.model.named.architecture"),
        ({"target": {"device": "edge/42"}}, "spec.target.device"),
        ({"target": {"device": "local/cuda:0", "runtime": "openvino"}}, "spec.target"),
        ({"target": {"precision": 99}}, "spec.target.precision"),
        ({"strategy": {"name": "magic"}}, "spec.strategy.name"),
        ({"strategy": {"name": "layerfit", "options": {"nonsense": 1}}}, "spec.strategy.options.nonsense"),
        ({"data": {"train": {"artifact": "artifacts/unknown"}}}, "spec.data.train.artifact"),
        ({"data": {"validation": {}}}, "spec.data.validation"),
        ({"data": {"train": {"server_path": "relative"}}}, "spec.data.train.server_path"),
        ({"data": {"train": {"server_path": "/etc"}}}, "spec.data.train.server_path"),
        ({"preprocessing": {"mean": [0.5]}}, "spec.preprocessing"),
        ({"fine_tuning": {"epochs": -1}}, "spec.fine_tuning.epochs"),
        ({"accuracy_floor": 1.5}, "spec.accuracy_floor"),
        ({"task": "segmentation"}, "spec.task"),
        ({"accuracy_floor": 0.9, "quality_floor": 0.9}, "spec"),
        ({"time_limit": Duration(seconds=1)}, "spec.time_limit"),
        ({"time_limit": Duration(seconds=8 * 86400)}, "spec.time_limit"),
    ],
)
async def test_a_bad_field_is_named(stub: ModelOptimizerStub, change: dict[str, Any], field: str) -> None:
    request = await job_request(stub)
    for name in change:
        request.optimization_job.spec.ClearField(name)
    request.optimization_job.spec.MergeFrom(job_pb.OptimizationJobSpec(**change))
    refused = await refusal(stub.CreateOptimizationJob(request))

    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.info.reason == "INVALID_REQUEST"
    assert list(refused.fields) == [field]
    assert len(refused.fields[field]) > 8
    assert not (await jobs_of(stub)).optimization_jobs


async def test_a_device_that_the_server_has_not_is_refused_when_the_job_is_created(stub: ModelOptimizerStub) -> None:
    request = await job_request(stub)
    request.optimization_job.spec.target.device = "local/cuda:99"
    refused = await refusal(stub.CreateOptimizationJob(request))

    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.info.reason == "DEVICE_MISSING"
    assert "it has: local/cpu" in refused.message
    assert not (await jobs_of(stub)).optimization_jobs


async def test_all_bad_fields_are_named_at_once(stub: ModelOptimizerStub) -> None:
    job = job_pb.OptimizationJob(display_name="x" * 257, spec={"budget": {"fraction": 2.0}})
    request = service_pb.CreateOptimizationJobRequest(optimization_job=job, optimization_job_id="X", request_id="1")
    refused = await refusal(stub.CreateOptimizationJob(request))

    assert set(refused.fields) == {
        "optimization_job_id", "request_id", "display_name", "spec.model", "spec.budget.fraction",
    }  # fmt: skip


async def test_an_artifact_of_the_wrong_kind_is_refused(stub: ModelOptimizerStub) -> None:
    data = await upload(stub, b"data", kind=service_pb.ARTIFACT_KIND_DATA)
    request = await job_request(stub)
    request.optimization_job.spec.model.pt2_artifact = data.name
    refused = await refusal(stub.CreateOptimizationJob(request))

    assert "is of kind DATA" in refused.fields["spec.model.pt2_artifact"]


async def test_data_may_lie_under_an_allowed_folder_only(tmp_path: Path) -> None:
    root, outside = tmp_path / "allowed", tmp_path / "outside.npz"
    root.mkdir()
    outside.write_bytes(b"secret")
    (root / "good.npz").write_bytes(b"samples")
    (root / "link.npz").symlink_to(outside)
    async with running(settings_for(tmp_path, data_roots=(root,))) as stub:
        request = await job_request(stub)
        train = request.optimization_job.spec.data.train
        for bad in (outside, root / "link.npz", root / ".." / "outside.npz", root / "missing.npz"):
            train.server_path = str(bad)
            assert list((await refusal(stub.CreateOptimizationJob(request))).fields) == ["spec.data.train.server_path"]
        train.server_path = str(root / "good.npz")
        job = await stub.CreateOptimizationJob(request)
        # The worker reads every file that it was given.
        assert (await finished(stub, job.name)).state == State.STATE_SUCCEEDED


async def test_a_repeated_request_returns_the_first_job(stub: ModelOptimizerStub) -> None:
    request = await job_request(stub, request_id=str(uuid.uuid4()))
    created = await asyncio.gather(*(stub.CreateOptimizationJob(request) for _ in range(20)))

    assert len({job.name for job in created}) == 1
    assert len((await jobs_of(stub)).optimization_jobs) == 1
    await finished(stub, created[0].name)
    assert (await stub.CreateOptimizationJob(request)).state == State.STATE_SUCCEEDED


async def test_a_repeated_request_with_another_body_is_refused(stub: ModelOptimizerStub) -> None:
    request = await job_request(stub, request_id=str(uuid.uuid4()))
    first = await stub.CreateOptimizationJob(request)
    request.optimization_job.spec.seed = 7
    refused = await refusal(stub.CreateOptimizationJob(request))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    resource = error_details_pb2.ResourceInfo()
    refused.details["ResourceInfo"].Unpack(resource)
    assert resource.resource_name == first.name


async def test_a_job_id_is_given_once(stub: ModelOptimizerStub) -> None:
    await start_job(stub, optimization_job_id="my-job")
    refused = await refusal(start_job(stub, optimization_job_id="my-job"))

    assert refused.code is grpc.StatusCode.ALREADY_EXISTS


async def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, queue_limit=1, worker_command=worker_command("sleep"))
    async with running(settings) as stub:
        await reached(stub, (await start_job(stub)).name, lambda job: job.state == State.STATE_RUNNING)
        await start_job(stub)
        refused = await refusal(start_job(stub))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
    retry = error_details_pb2.RetryInfo()
    refused.details["RetryInfo"].Unpack(retry)
    assert retry.retry_delay.seconds > 0
    assert "QuotaFailure" in refused.details


async def test_twenty_jobs_created_at_once_all_finish(tmp_path: Path) -> None:
    async with running(
        settings_for(tmp_path, workers=4, worker_command=worker_command("error", "NO", "caller"))
    ) as stub:
        request = await job_request(stub)
        created = await asyncio.gather(*(stub.CreateOptimizationJob(request) for _ in range(20)))
        ended = await asyncio.gather(*(finished(stub, job.name) for job in created))

    assert len({job.name for job in ended}) == 20
    assert {job.state for job in ended} == {State.STATE_FAILED}
    assert {job.attempts for job in ended} == {1}


@pytest.mark.parametrize("method", ["GetOptimizationJob", "CancelOptimizationJob", "WatchOptimizationJob"])
async def test_an_unknown_job_is_not_found(stub: ModelOptimizerStub, method: str) -> None:
    async def call(name: str) -> None:
        answer = getattr(stub, method)(getattr(service_pb, f"{method}Request")(name=name))
        await (answer.read() if method == "WatchOptimizationJob" else answer)

    refused = await refusal(call("optimizationJobs/nobody"))
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
    assert "ResourceInfo" in refused.details
    assert (await refusal(call("jobs/nobody"))).code is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refusal(call("optimizationJobs/a/b"))).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_jobs_are_listed_newest_first_in_stable_pages(stub: ModelOptimizerStub) -> None:
    created = [(await start_job(stub, optimization_job_id=f"job-{number}")).name for number in range(5)]
    first = await jobs_of(stub, page_size=2)
    await start_job(stub, optimization_job_id="late")
    second = await jobs_of(stub, page_size=2, page_token=first.next_page_token)
    last = await jobs_of(stub, page_size=1000, page_token=second.next_page_token)

    listed = [job.name for page in (first, second, last) for job in page.optimization_jobs]
    assert listed == created[::-1]
    assert last.next_page_token == ""


async def test_a_page_of_exactly_the_last_jobs_has_no_next(stub: ModelOptimizerStub) -> None:
    await start_job(stub)
    await start_job(stub)

    assert (await jobs_of(stub, page_size=2)).next_page_token == ""


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"page_size": -1}, "page_size"), ({"page_token": "x"}, "page_token"), ({"page_token": "djI6MQ=="}, "page_token")],
)
async def test_bad_paging_is_refused(stub: ModelOptimizerStub, fields: dict[str, Any], name: str) -> None:
    assert list((await refusal(jobs_of(stub, **fields))).fields) == [name]


async def test_a_running_job_is_cancelled_with_all_its_processes(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("stubborn"))) as stub:
        job = await reached(stub, (await start_job(stub)).name, lambda job: job.progress.phase == "tune")
        started = time.monotonic()
        asked = await cancel(stub, job.name)
        ended = await finished(stub, job.name)

        assert asked.state == State.STATE_CANCELLING
        assert ended.state == State.STATE_CANCELLED
        assert time.monotonic() - started < 4
        await gone(int(job.progress.metrics["child"]))
        assert ended == await cancel(stub, job.name)


async def test_a_waiting_job_is_cancelled_at_once(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("sleep"))) as stub:
        await start_job(stub)
        waiting = await start_job(stub)
        cancelled = await cancel(stub, waiting.name)

        assert cancelled.state == State.STATE_CANCELLED
        assert cancelled.HasField("end_time")
        assert cancelled.attempts == 0


async def test_strategies_are_listed_with_the_schema_of_their_options(stub: ModelOptimizerStub) -> None:
    listed = (await stub.ListStrategies(service_pb.ListStrategiesRequest())).strategies

    assert [item.name for item in listed] == sorted(item.name for item in listed)
    layerfit = next(item for item in listed if item.name == "layerfit")
    assert layerfit.summary
    assert layerfit.options_schema["type"] == "object"


async def test_health_and_reflection_answer(tmp_path: Path) -> None:
    server = create(settings_for(tmp_path))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        serving = await health.Check(health_pb2.HealthCheckRequest(service="shoal.v1.ModelOptimizer"))
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = {item.name for item in (await asked.read()).list_services_response.service}
        watching = health.Watch(health_pb2.HealthCheckRequest())
        states = [(await watching.read()).status]
        stopping = asyncio.create_task(server.stop(1))
        states.append((await watching.read()).status)
        watching.cancel()
        await stopping

    assert serving.status == health_pb2.HealthCheckResponse.SERVING
    others = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert names == {"shoal.v1.ModelOptimizer", "shoal.v1.DeviceAgents", "google.longrunning.Operations", *others}
    assert states == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


def test_a_server_that_took_jobs_has_not_loaded_the_engine(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "state") as server, Client(server.address) as client:
        (tmp_path / "net.pt2").write_bytes(b"a model")
        artifact = client.upload(tmp_path / "net.pt2", service_pb.ARTIFACT_KIND_MODEL)
        model, budget = job_pb.ModelSource(pt2_artifact=artifact.name), job_pb.Budget(fraction=0.5)
        list(client.watch(client.create(model=model, budget=budget).name))
        client.strategies()
        list(client.devices())
        assert server.process is not None
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()

    assert "libtorch" not in mapped
