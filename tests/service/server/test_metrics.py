"""Metrics of a real server, scraped over HTTP and read with Prometheus' own parser."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.database.database import Database
from service.devices.agents import AgentStore
from service.errors import ListenError
from service.server import create
from service.settings import ServerSettings
from tests.service.server_harness import finished, settings_for, start_job, upload, worker_command

Scrape = Callable[[], "asyncio.Future[Metrics]"]


class Metrics:
    """Samples by name and labels."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in families for sample in family.samples]

    def __call__(self, name: str, **labels: str) -> float:
        found = [one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items()]
        return sum(found)


@asynccontextmanager
async def measured(settings: ServerSettings) -> AsyncIterator[tuple[ModelOptimizerStub, Scrape]]:
    server = create(settings)
    port = await server.start()
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"

    def scrape() -> Metrics:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return Metrics(answer.read().decode())

    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield ModelOptimizerStub(channel), lambda: asyncio.ensure_future(asyncio.to_thread(scrape))
    finally:
        await server.stop()


def asked(tmp_path: Path, **changes: Any) -> ServerSettings:
    return settings_for(tmp_path, metrics_address="127.0.0.1:0", **changes)


async def test_a_finished_job_is_counted(tmp_path: Path) -> None:
    async with measured(asked(tmp_path)) as (stub, scrape):
        await finished(stub, (await start_job(stub)).name)
        metrics = await scrape()

    labels = {"strategy": "layerfit", "device_class": "local", "reason": ""}
    assert metrics("shoal_jobs_finished_total", **labels) == 1
    assert metrics("shoal_jobs", state="succeeded") == 1
    assert metrics("shoal_jobs") == 1
    assert metrics("shoal_phase_seconds_count", phase="plan", strategy="layerfit") == 1
    assert metrics("shoal_workers_running") == 0
    assert metrics("shoal_worker_deaths_total") == 0
    assert metrics("shoal_disk_free_bytes") > 0
    assert metrics("shoal_ready") == 3


async def test_a_failure_and_a_death_are_counted_by_reason(tmp_path: Path) -> None:
    settings = asked(tmp_path, worker_command=worker_command("die", "9"))
    async with measured(settings) as (stub, scrape):
        await finished(stub, (await start_job(stub)).name)
        metrics = await scrape()

    assert metrics("shoal_jobs_finished_total", outcome="failed", reason="WORKER_DIED") == 1
    assert metrics("shoal_worker_deaths_total") == 1


async def test_what_waits_is_counted(tmp_path: Path) -> None:
    settings = asked(tmp_path, worker_command=worker_command("sleep"))
    settings.state_dir.mkdir()
    database = Database(settings.database)
    AgentStore(database).add("edge")
    database.close()
    async with measured(settings) as (stub, scrape):
        for _ in range(3):
            await start_job(stub)
        async with asyncio.timeout(10):
            while not (metrics := await scrape())("shoal_workers_running"):  # noqa: ASYNC110 (nobody sets an event)
                await asyncio.sleep(0.02)

    assert metrics("shoal_jobs", state="running") == 1
    assert metrics("shoal_queue_length") == 2
    assert metrics("shoal_queue_oldest_seconds") > 0
    assert metrics("shoal_workers_running") == 1
    assert (metrics("shoal_devices", state="offline"), metrics("shoal_devices")) == (1, 1)
    assert metrics("shoal_device_work") == 0


async def test_calls_are_counted_by_method_and_code_with_their_bytes(tmp_path: Path) -> None:
    async with measured(asked(tmp_path)) as (stub, scrape):
        job = await start_job(stub)
        await finished(stub, job.name)
        for name in ("optimizationJobs/nowhere", "optimizationJobs/nowhere", "nonsense"):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=name))
        metrics = await scrape()

    service = "shoal.v1.ModelOptimizer"
    get = f"{service}/GetOptimizationJob"
    assert metrics("shoal_rpc_seconds_count", method=get, code="NOT_FOUND") == 2
    assert metrics("shoal_rpc_seconds_count", method=get, code="INVALID_ARGUMENT") == 1
    assert metrics("shoal_rpc_seconds_count", method=f"{service}/WatchOptimizationJob", code="OK") == 1
    assert metrics("shoal_rpc_received_bytes_total", method=f"{service}/UploadArtifact") > len(b"a model")
    assert metrics("shoal_rpc_sent_bytes_total", method=f"{service}/CreateOptimizationJob") == job.ByteSize()


async def test_a_dry_run_that_dies_is_counted_and_runs_no_longer(tmp_path: Path) -> None:
    settings = asked(tmp_path, worker_command=worker_command("die", "9"))
    async with measured(settings) as (stub, scrape):
        artifact = await upload(stub, b"a model")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.AnalyzeModel(service_pb.AnalyzeModelRequest(model={"pt2_artifact": artifact.name}))
        metrics = await scrape()

    assert (metrics("shoal_workers_running"), metrics("shoal_worker_deaths_total")) == (0, 1)
    assert metrics("shoal_rpc_seconds_count", method="shoal.v1.ModelOptimizer/AnalyzeModel", code="INTERNAL") == 1


async def test_a_watch_that_its_client_leaves_is_counted_as_cancelled(tmp_path: Path) -> None:
    settings = asked(tmp_path, worker_command=worker_command("sleep"))
    async with measured(settings) as (stub, scrape):
        job = await start_job(stub)
        watching = stub.WatchOptimizationJob(service_pb.WatchOptimizationJobRequest(name=job.name))
        await watching.read()
        watching.cancel()
        async with asyncio.timeout(5):
            while not (await scrape())("shoal_rpc_seconds_count", code="CANCELLED"):  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0.02)


async def test_no_label_says_which_job_or_whose(tmp_path: Path) -> None:
    async with measured(asked(tmp_path)) as (stub, scrape):
        job = await start_job(stub, optimization_job_id="of-a-customer")
        await finished(stub, job.name)
        metrics = await scrape()

    assert metrics.samples
    for sample in metrics.samples:
        assert set(sample.labels) <= {"method", "code", "le", "strategy", "phase", "reason", "outcome", "state",
                                      "device_class", "check"}  # fmt: skip
        assert "customer" not in str(sample.labels)


async def test_metrics_are_off_unless_asked_for(tmp_path: Path) -> None:
    server = create(settings_for(tmp_path))
    await server.start()
    await server.stop()

    assert server.metrics_port is None


async def test_an_address_in_use_is_said(tmp_path: Path) -> None:
    first = create(asked(tmp_path / "one"))
    await first.start()
    second = create(settings_for(tmp_path / "two", metrics_address=f"127.0.0.1:{first.metrics_port}"))
    with pytest.raises(ListenError, match="metrics"):
        await second.start()
    await first.stop()


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "9464", "host:port"])
def test_metrics_stay_on_this_machine_unless_allowed(address: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="metrics_address"):
        settings_for(tmp_path, metrics_address=address)
