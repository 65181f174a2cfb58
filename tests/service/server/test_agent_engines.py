"""Engines that a device built reach the delivered folder, through a real server; there is no TensorRT to build one."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from deploy.agent.link import Link
from deploy.agent.settings import AgentSettings
from deploy.engines.metadata import EngineMetadata, metadata_path, read_engine, write_metadata
from deploy.engines.place import private_folder
from protos.shoal.v1 import device_agents_pb2 as agents_pb
from protos.shoal.v1 import device_pb2
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.delivery.manifest import FILENAME, Manifest
from service.delivery.verify import verify
from service.settings import ServerSettings
from tests.deploy.engines.test_metadata import METADATA
from tests.service.flaky_proxy import FlakyProxy
from tests.service.server.test_agents import agent, known, running, start, taken, until
from tests.service.server.test_storage import download
from tests.service.server_harness import finished, settings_for, worker_command
from tests.service.workers.reports import FILES

State = job_pb.OptimizationJob.State
CONTENT = bytes(range(256)) * (12 << 10)
"""An engine of 3 MiB: it travels in six messages."""


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    return settings_for(tmp_path, worker_command=worker_command("engine"))


@pytest.fixture
def metadata() -> EngineMetadata:
    return replace(
        METADATA,
        onnx_sha256=hashlib.sha256(FILES["model.onnx"]).hexdigest(),
        engine_sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


@asynccontextmanager
async def jetson(address: str, token: str, folder: Path) -> AsyncIterator[tuple[Link, Callable[[], agents_pb.Work]]]:
    """An agent's connection, of a device that says that it has TensorRT, and what takes its next piece of work."""
    link = Link(AgentSettings(address, token, folder), "session-one", threading.Event())
    device = device_pb2.Device(runtimes=[{"name": "tensorrt", "version": "10.3.0", "device": "cuda:0"}])

    await asyncio.to_thread(link.register, device)
    try:
        yield link, partial(taken, link)
    finally:
        link.close()


def built(folder: Path, metadata: EngineMetadata) -> tuple[Path, Path]:
    """An engine as its device keeps it, sealed there, and the result that goes with it."""
    home = private_folder(folder / "engines")
    engine = home / "engine"
    engine.write_bytes(CONTENT)
    write_metadata(engine, metadata, home)
    (folder / "result.json").write_text('{"engine": true}')
    return engine, folder / "result.json"


def announced(*paths: Path) -> agents_pb.WorkAnswer:
    answer = agents_pb.WorkAnswer()
    for path in paths:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        answer.files.add(filename=path.name, size_bytes=len(content), sha256=digest)
    return answer


async def delivered(stub: ModelOptimizerStub, job: job_pb.OptimizationJob, to: Path) -> Manifest:
    """Downloads what a job delivered; returns its manifest."""
    assert job.state == State.STATE_SUCCEEDED, job.error
    files = {each.filename: await download(stub, each.name) for each in job.result.artifacts}
    await asyncio.to_thread(write, files, to)
    return Manifest.model_validate_json(files[FILENAME])


def write(files: dict[str, bytes], to: Path) -> None:
    to.mkdir()
    for name, content in files.items():
        (to / name).write_bytes(content)


async def order(stub: ModelOptimizerStub) -> str:
    return (await start(stub, device="agent/edge/cuda:0", runtime="tensorrt")).name


async def test_what_a_runtime_made_comes_from_a_real_agent(settings: ServerSettings, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    token = known(settings)
    async with running(settings) as (stub, address), agent(address, token, tmp_path / "agent") as edge:
        await until(lambda: edge.said)
        job = await finished(stub, (await start(stub, runtime="openvino")).name)
        assert edge.done("engine") == 1

    assert job.state == State.STATE_SUCCEEDED, job.error
    assert job.progress.metrics["sum"] == 2.0


@pytest.mark.parametrize("cuts", [(), (1 << 20, 2 << 20)])
async def test_an_engine_is_delivered_whatever_becomes_of_the_connection(
    cuts: tuple[int, ...], settings: ServerSettings, metadata: EngineMetadata, tmp_path: Path
) -> None:
    token = known(settings)
    engine, result = built(tmp_path, metadata)
    async with running(settings) as (stub, address):
        with FlakyProxy(int(address.rpartition(":")[2]), cut_after=cuts) as proxy:
            async with jetson(proxy.address, token, tmp_path) as (link, take):
                name = await order(stub)
                work = await asyncio.to_thread(take)
                files = (result, engine, metadata_path(engine))
                taken = await asyncio.to_thread(link.complete, work, announced(*files), files)
                job = await finished(stub, name)
            assert proxy.connections == len(cuts) + 1
        manifest = await delivered(stub, job, tmp_path / "out")

    assert (work.kind, taken) == ("engine", True)
    (entry,) = manifest.engines
    assert (entry.runtime, entry.metadata["gpu"]) == ("tensorrt 10.3.0", metadata.gpu)
    (check,) = [check for check in verify(tmp_path / "out").checks if check.name == "engine"]
    assert check.message.startswith("belongs to the model")
    # The device that built it loads it.
    assert read_engine(tmp_path / "out" / "model.engine", engine.parent) == (CONTENT, metadata)


async def test_a_job_whose_agent_is_too_old_to_send_engines_says_so(settings: ServerSettings, tmp_path: Path) -> None:
    token = known(settings)
    async with running(settings) as (stub, address), jetson(address, token, tmp_path) as (link, take):
        name = await order(stub)
        work = await asyncio.to_thread(take)
        words = "this agent does not know work of the kind 'engine'; the server may be newer than the agent"
        answer = agents_pb.WorkAnswer(failure={"kind": "MeasureError", "message": words})
        await asyncio.to_thread(link.complete, work, answer, ())
        manifest = await delivered(stub, await finished(stub, name), tmp_path / "out")

    assert (manifest.engines, manifest.engine_missing) == ((), words)
    assert not (tmp_path / "out" / "model.engine").exists()
    (check,) = [check for check in verify(tmp_path / "out").checks if check.name == "engine"]
    assert (check.status, check.message) == ("skipped", f"was not delivered: {words}")


async def test_an_engine_of_another_model_is_not_delivered(
    settings: ServerSettings, metadata: EngineMetadata, tmp_path: Path
) -> None:
    token = known(settings)
    engine, result = built(tmp_path, replace(metadata, onnx_sha256="a" * 64))
    async with running(settings) as (stub, address), jetson(address, token, tmp_path) as (link, take):
        name = await order(stub)
        work = await asyncio.to_thread(take)
        files = (result, engine, metadata_path(engine))
        await asyncio.to_thread(link.complete, work, announced(*files), files)
        manifest = await delivered(stub, await finished(stub, name), tmp_path / "out")

    assert manifest.engines == ()
    assert str(manifest.engine_missing).startswith("the engine was built of another model: ")
