"""Jobs on a device that an agent speaks for: a real server, a real agent, a worker that asks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy.agent.agent import run_agent
from deploy.agent.errors import RefusedError, UnwantedError
from deploy.agent.link import Link
from deploy.agent.settings import AgentSettings
from protos.shoal.v1 import device_agents_pb2 as agents_pb
from protos.shoal.v1 import device_pb2
from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.device_agents_pb2_grpc import DeviceAgentsStub
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.database.database import Database
from service.devices.agents import AgentStore
from service.server import create
from service.settings import ServerSettings
from tests.service.server.test_restart import served
from tests.service.server_harness import finished, reached, settings_for, upload, worker_command
from tests.service.server_process import free_port

State = job_pb.OptimizationJob.State


@asynccontextmanager
async def running(settings: ServerSettings) -> AsyncIterator[tuple[ModelOptimizerStub, str]]:
    """A real server: a stub that talks to it, and its address."""
    server = create(settings)
    address = f"127.0.0.1:{await server.start()}"
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield ModelOptimizerStub(channel), address
    finally:
        await server.stop()


def known(settings: ServerSettings, name: str = "edge") -> str:
    """The token of an agent that the server knows."""
    settings.state_dir.mkdir(exist_ok=True)
    database = Database(settings.database)
    try:
        return AgentStore(database).add(name)
    finally:
        database.close()


class RunningAgent:
    """A real agent in a thread."""

    def __init__(self, settings: AgentSettings) -> None:
        self.said: list[str] = []
        self.error: Exception | None = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(settings,), daemon=True)
        self.thread.start()

    def _run(self, settings: AgentSettings) -> None:
        try:
            run_agent(settings, self.stop, self.said.append)
        except Exception as exc:  # noqa: BLE001 (the test looks at it)
            self.error = exc

    def end(self) -> None:
        self.stop.set()
        self.thread.join(timeout=30)
        assert not self.thread.is_alive()

    def done(self, kind: str) -> int:
        """How many pieces of work of a kind it has finished."""
        return sum(line.startswith(f"{kind}: done") for line in self.said)


@asynccontextmanager
async def agent(address: str, token: str, folder: Path, **changes: Any) -> AsyncIterator[RunningAgent]:
    found = RunningAgent(AgentSettings(address, token, folder, cool_below=None, **changes))
    try:
        yield found
    finally:
        await asyncio.to_thread(found.end)


async def until(condition: Any, seconds: float = 120.0) -> None:
    """Waits until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.02)


def taken(link: Link) -> agents_pb.Work:
    """The next piece of work; a worker on a busy machine may take long to ask for it."""
    for _ in range(9):
        if (work := link.lease()) is not None:
            return work
    raise AssertionError("there is no work")


async def leased(stub: DeviceAgentsStub, lease: agents_pb.LeaseWorkRequest, metadata: Any) -> agents_pb.Work:
    """The same by hand."""
    for _ in range(9):
        if (answer := await stub.LeaseWork(lease, metadata=metadata)).HasField("work"):
            return answer.work
    raise AssertionError("there is no work")


async def devices(stub: ModelOptimizerStub) -> dict[str, device_pb2.Device]:
    return {one.name: one for one in (await stub.ListDevices(service_pb.ListDevicesRequest())).devices}


async def start(stub: ModelOptimizerStub, questions: int = 1, limit: int = 30, **target: str) -> job_pb.OptimizationJob:
    artifact = await upload(stub, b"a model", upload_id="upload-of-model")
    job = job_pb.OptimizationJob(
        spec={
            "model": {"pt2_artifact": artifact.name},
            "budget": {"fraction": 0.5},
            "target": {"device": "agent/edge", **target},
            "seed": questions,
            "time_limit": {"seconds": limit},
        }
    )
    return await stub.CreateOptimizationJob(service_pb.CreateOptimizationJobRequest(optimization_job=job))


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    return settings_for(tmp_path, worker_command=worker_command("asks"))


async def test_a_job_gets_its_answers_from_the_device(settings: ServerSettings, tmp_path: Path) -> None:
    token = known(settings)
    async with running(settings) as (stub, address):
        async with agent(address, token, tmp_path / "agent") as edge:
            await until(lambda: edge.said)
            job = await finished(stub, (await start(stub, 2)).name)
        assert edge.done("run") == 2

    assert job.state == State.STATE_SUCCEEDED, job.error
    metrics = job.progress.metrics
    assert [metrics[name] for name in ("first_0", "second_0", "first_1", "second_1")] == [1.0, 11.0, 2.0, 12.0]
    assert not list((settings.state_dir / "artifacts/device-work").glob("*"))


async def test_devices_are_listed_with_what_they_can_do(settings: ServerSettings, tmp_path: Path) -> None:
    token = known(settings)
    async with running(settings) as (stub, address):
        before = await devices(stub)
        async with agent(address, token, tmp_path / "agent") as edge:
            await until(lambda: edge.said)
            during = await devices(stub)
        page = await stub.ListDevices(service_pb.ListDevicesRequest(page_size=1))
        rest = await stub.ListDevices(service_pb.ListDevicesRequest(page_size=1, page_token=page.next_page_token))

    assert list(before) == ["local/cpu", "agent/edge"]
    assert before["agent/edge"].state == device_pb2.Device.STATE_OFFLINE
    assert during["agent/edge"].state == device_pb2.Device.STATE_IDLE
    assert "onnxruntime" in {one.name for one in during["agent/edge"].runtimes}
    assert during["agent/edge"].last_seen.seconds > 0
    assert [one.name for one in (*page.devices, *rest.devices)] == ["local/cpu", "agent/edge"]
    assert rest.next_page_token == ""


async def test_a_job_waits_for_a_device_that_is_gone_and_says_so(settings: ServerSettings, tmp_path: Path) -> None:
    token = known(settings)
    async with running(settings) as (stub, address):
        async with agent(address, token, tmp_path / "agent") as edge:
            await until(lambda: edge.said)
        name = (await start(stub)).name
        waiting = await reached(stub, name, lambda job: "waiting for agent/edge" in job.progress.message)
        await asyncio.sleep(1.0)
        async with agent(address, token, tmp_path / "agent"):
            job = await finished(stub, name)

    assert waiting.state == State.STATE_RUNNING
    assert job.state == State.STATE_SUCCEEDED, job.error
    # The wait is no part of the job's own time.
    took = job.end_time.ToNanoseconds() / 1e9 - job.start_time.ToNanoseconds() / 1e9
    assert job.progress.metrics["elapsed"] < took - 1.0


async def test_waiting_does_not_count_against_the_time_limit(settings: ServerSettings, tmp_path: Path) -> None:
    token = known(settings)
    async with running(settings) as (stub, address):
        async with agent(address, token, tmp_path / "agent") as edge:
            await until(lambda: edge.said)
        artifact = await upload(stub, b"a model", upload_id="upload-of-model")
        spec = {"model": {"pt2_artifact": artifact.name}, "budget": {"fraction": 0.5}, "time_limit": {"seconds": 10}}
        spec["target"] = {"device": "agent/edge"}
        request = service_pb.CreateOptimizationJobRequest(optimization_job=job_pb.OptimizationJob(spec=spec))
        name = (await stub.CreateOptimizationJob(request)).name
        await asyncio.sleep(12.0)  # longer than the job may take, and than the grace after that
        async with agent(address, token, tmp_path / "agent"):
            job = await finished(stub, name)

    assert job.state == State.STATE_SUCCEEDED, job.error


async def test_work_that_never_ends_is_ended_by_the_time_limit(settings: ServerSettings, tmp_path: Path) -> None:
    """The agent is there and keeps its lease, and has no answer."""
    token = known(settings)
    async with running(settings) as (stub, address):
        link = Link(AgentSettings(address, token, tmp_path), "session-one", threading.Event())
        await asyncio.to_thread(link.register, device_pb2.Device(runtimes=[{"name": "onnxruntime", "version": "1"}]))
        name = (await start(stub, limit=10)).name
        work = await asyncio.to_thread(taken, link)
        assert work is not None
        await asyncio.to_thread(link.renew, work, "at work", 1000.0)
        job = await finished(stub, name)
        wanted = await asyncio.to_thread(link.renew, work, "at work", 1001.0)
        link.close()

    assert (job.state, job.error.reason) == (State.STATE_EXPIRED, "TIME_LIMIT")
    assert not wanted


async def test_work_of_an_agent_that_died_is_done_by_the_next(settings: ServerSettings, tmp_path: Path) -> None:
    token = known(settings)
    async with running(settings) as (stub, address), grpc.aio.insecure_channel(address) as channel:
        dead = DeviceAgentsStub(channel)
        metadata = (("authorization", f"Bearer {token}"),)
        device = device_pb2.Device(runtimes=[{"name": "onnxruntime", "version": "1"}])
        register = agents_pb.RegisterDeviceRequest(session="session-one", device=device)
        await dead.RegisterDevice(register, metadata=metadata)
        name = (await start(stub)).name
        lease = agents_pb.LeaseWorkRequest(session="session-one", patience={"seconds": 20})
        first = await leased(dead, lease, metadata)
        again = (await dead.LeaseWork(lease, metadata=metadata)).work
        async with agent(address, token, tmp_path / "agent") as edge:
            job = await finished(stub, name)
        # Who was given up has nothing more to say.
        renew = agents_pb.RenewLeaseRequest(session="session-one", work=first.id, lease=first.lease)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await dead.RenewLease(renew, metadata=metadata)

    assert (again.id, again.lease) == (first.id, first.lease)
    assert job.state == State.STATE_SUCCEEDED, job.error
    assert edge.done("run") == 1
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "another process speaks for agent/edge" in str(refused.value.details())


async def test_of_two_agents_with_one_token_the_later_one_stays(settings: ServerSettings, tmp_path: Path) -> None:
    token = known(settings)
    async with running(settings) as (stub, address), agent(address, token, tmp_path / "first") as first:
        await until(lambda: first.said)
        async with agent(address, token, tmp_path / "second") as second:
            await until(lambda: first.error is not None, 5.0)
            job = await finished(stub, (await start(stub)).name)
            assert second.error is None

    assert isinstance(first.error, RefusedError)
    assert "another process speaks for agent/edge now: it was started later" in str(first.error)
    assert job.state == State.STATE_SUCCEEDED, job.error
    assert (first.done("run"), second.done("run")) == (0, 1)


async def test_a_sign_of_life_takes_nothing_from_a_later_process(settings: ServerSettings, tmp_path: Path) -> None:
    token = known(settings)
    async with running(settings) as (_, address):
        first, second = (
            Link(AgentSettings(address, token, tmp_path), session, threading.Event())
            for session in ("session-one", "session-two")
        )
        device = device_pb2.Device(runtimes=[{"name": "onnxruntime", "version": "1"}])
        for link in (first, second):
            await asyncio.to_thread(link.register, device)
        with pytest.raises(RefusedError, match="another process speaks for agent/edge now"):
            await asyncio.to_thread(first.register, device, goes_on=True)
        await asyncio.to_thread(second.register, device, goes_on=True)
        for link in (first, second):
            link.close()


async def test_an_agent_goes_on_when_a_killed_server_comes_back(tmp_path: Path) -> None:
    """What was asked, and what was answered, is on disk on both sides."""
    address = f"127.0.0.1:{free_port()}"
    settings = settings_for(tmp_path, worker_command=worker_command("asks"), max_attempts=5, address=address)
    token = known(settings)
    edge = RunningAgent(AgentSettings(address, token, tmp_path / "agent", cool_below=None))
    try:
        async with served(settings) as (stub, _):
            await until(lambda: edge.said)
            name = (await start(stub, 8)).name
            await until(lambda: edge.done("run") >= 2)
        done_before = edge.done("run")
        async with served(settings) as (stub, _):
            job = await finished(stub, name)
    finally:
        await asyncio.to_thread(edge.end)

    assert job.state == State.STATE_SUCCEEDED, job.error
    assert job.attempts == 2
    assert done_before < 8
    # Nothing that was answered is asked again: one piece may have been begun when the server went.
    assert 8 <= edge.done("run") <= 9
    assert job.progress.metrics["first_7"] == 8.0


async def test_an_answer_that_is_too_large_ends_the_work_and_not_the_agent(
    settings: ServerSettings, tmp_path: Path
) -> None:
    token = known(settings)
    small = settings.model_copy(update={"max_device_answer_bytes": 10})
    async with running(small) as (stub, address), agent(address, token, tmp_path / "agent") as edge:
        await until(lambda: edge.said)
        job = await finished(stub, (await start(stub)).name)
        await until(lambda: edge.said[-1].startswith("run: failed: "))
        assert "an answer may have" in edge.said[-1]
        assert edge.thread.is_alive()

    assert job.state == State.STATE_FAILED


@pytest.mark.parametrize("folder", ["files", "finished", "work"])
async def test_an_agent_that_cannot_write_fails_its_work_and_lives_on(
    folder: str, settings: ServerSettings, tmp_path: Path
) -> None:
    token, home = known(settings), tmp_path / "agent"
    async with running(settings) as (stub, address), agent(address, token, home) as edge:
        await until(lambda: edge.said)
        (home / folder).rename(home / "kept")
        (home / folder).write_text("no folder")
        failed = await finished(stub, (await start(stub)).name)
        await until(lambda: "cannot read or write files" in edge.said[-1])
        (home / folder).unlink()
        (home / "kept").rename(home / folder)
        job = await finished(stub, (await start(stub)).name)

    assert failed.state == State.STATE_FAILED
    assert str(tmp_path) not in "".join(edge.said)
    assert job.state == State.STATE_SUCCEEDED, job.error


async def test_a_cancelled_job_calls_its_work_off(settings: ServerSettings, tmp_path: Path) -> None:
    token = known(settings)
    async with running(settings) as (stub, address), agent(address, token, tmp_path / "agent") as edge:
        await until(lambda: edge.said)
        name = (await start(stub, 10_000)).name
        await until(lambda: edge.done("run") >= 1)
        await stub.CancelOptimizationJob(service_pb.CancelOptimizationJobRequest(name=name))
        job = await finished(stub, name)
        await until(lambda: not list((settings.state_dir / "artifacts/device-work").glob("*")))
        # The device is free for others.
        other = await finished(stub, (await start(stub)).name)

    assert job.state == State.STATE_CANCELLED
    assert other.state == State.STATE_SUCCEEDED


async def test_work_that_was_dropped_while_it_was_fetched_is_no_longer_wanted(
    settings: ServerSettings, tmp_path: Path
) -> None:
    """An agent lives on when a job is cancelled at a bad moment."""
    token = known(settings)
    async with running(settings) as (stub, address):
        link = Link(AgentSettings(address, token, tmp_path), "session-one", threading.Event())
        device = device_pb2.Device(runtimes=[{"name": "onnxruntime", "version": "1"}])
        await asyncio.to_thread(link.register, device)
        name = (await start(stub)).name
        work = await asyncio.to_thread(taken, link)
        await stub.CancelOptimizationJob(service_pb.CancelOptimizationJobRequest(name=name))
        await finished(stub, name)
        await until(lambda: not list((settings.state_dir / "artifacts/device-work").glob("*")))
        with pytest.raises(UnwantedError):
            await asyncio.to_thread(link.download, work, 0, tmp_path / "file")
        wanted = await asyncio.to_thread(link.renew, work, "at work")
        link.close()
    assert not wanted


@pytest.mark.parametrize(
    ("device", "runtime", "message"),
    [
        ("agent/nobody", "onnxruntime", "no agent is called 'nobody'; known are: agent/edge"),
        ("agent/edge", "onnxruntime", "agent/edge was never heard of"),
    ],
)
async def test_a_device_that_is_not_there_is_refused_at_once(
    device: str, runtime: str, message: str, settings: ServerSettings
) -> None:
    known(settings)
    async with running(settings) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await start(stub, device=device, runtime=runtime)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert message in str(refused.value.details())


async def test_a_runtime_that_the_device_lacks_is_refused_at_once(settings: ServerSettings) -> None:
    token = known(settings)
    async with running(settings) as (stub, address), grpc.aio.insecure_channel(address) as channel:
        device = device_pb2.Device(runtimes=[{"name": "onnxruntime", "version": "1.31"}])
        await DeviceAgentsStub(channel).RegisterDevice(
            agents_pb.RegisterDeviceRequest(session="session-one", device=device),
            metadata=(("authorization", f"Bearer {token}"),),
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await start(stub, runtime="openvino")
    assert "agent/edge has no openvino on cpu; it has: onnxruntime on cpu" in str(refused.value.details())


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "Basic abc"),)])
async def test_who_has_no_token_is_no_agent(metadata: tuple, settings: ServerSettings) -> None:
    known(settings)
    async with running(settings) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = DeviceAgentsStub(channel)
        lease = agents_pb.LeaseWorkRequest(session="session-one")
        for call in (
            stub.RegisterDevice(agents_pb.RegisterDeviceRequest(session="session-one"), metadata=metadata),
            stub.LeaseWork(lease, metadata=metadata),
            stub.RenewLease(agents_pb.RenewLeaseRequest(session="session-one"), metadata=metadata),
            stub.CompleteWork(iter([]), metadata=metadata),
            stub.DownloadWorkFile(agents_pb.DownloadWorkFileRequest(work="x"), metadata=metadata).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_agent_sees_only_its_own_work(settings: ServerSettings, tmp_path: Path) -> None:
    token, other = known(settings), known(settings, "other")
    async with running(settings) as (stub, address), grpc.aio.insecure_channel(address) as channel:
        agents = DeviceAgentsStub(channel)
        device = device_pb2.Device(runtimes=[{"name": "onnxruntime", "version": "1"}])
        for session, key in (("session-one", token), ("session-two", other)):
            request = agents_pb.RegisterDeviceRequest(session=session, device=device)
            await agents.RegisterDevice(request, metadata=(("authorization", f"Bearer {key}"),))
        await start(stub)
        lease = agents_pb.LeaseWorkRequest(session="session-one", patience={"seconds": 20})
        work = await leased(agents, lease, (("authorization", f"Bearer {token}"),))
        theirs = (("authorization", f"Bearer {other}"),)
        nothing = await agents.LeaseWork(agents_pb.LeaseWorkRequest(session="session-two"), metadata=theirs)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await agents.DownloadWorkFile(
                agents_pb.DownloadWorkFileRequest(work=work.id, index=0), metadata=theirs
            ).read()
        answer = agents_pb.WorkAnswer(session="session-two", work=work.id, lease=work.lease)
        message = agents_pb.CompleteWorkRequest(answer=answer)
        forged = await agents.CompleteWork(iter([message]), metadata=theirs)

    assert work.kind == "run"
    assert not nothing.HasField("work")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert not forged.taken


async def test_an_agent_whose_token_is_gone_stops(settings: ServerSettings, tmp_path: Path) -> None:
    async with running(settings) as (_, address), agent(address, "no-token-at-all", tmp_path / "agent") as edge:
        await until(lambda: edge.error is not None)
    assert isinstance(edge.error, RefusedError)
    assert "no agent has this token" in str(edge.error)
