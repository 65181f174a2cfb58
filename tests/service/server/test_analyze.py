from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import psutil
import pytest

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from tests.service.server_harness import eventually, refusal, running, settings_for, upload, worker_command


async def request_for(stub: ModelOptimizerStub, **fields: object) -> service_pb.AnalyzeModelRequest:
    artifact = await upload(stub, b"a model")
    return service_pb.AnalyzeModelRequest(model={"pt2_artifact": artifact.name}, **fields)


async def test_a_dry_run_says_what_can_be_cut(stub: ModelOptimizerStub) -> None:
    found = await stub.AnalyzeModel(await request_for(stub))

    assert found.parameters == 5
    assert found.sites[0].shape == [4, 8, 8]
    assert found.segments[0].candidates == ["remove"]
    assert found.refusals == [job_pb.Refusal(where="head", code="last", reason="The head stays.")]
    assert (found.floor.baseline_ms, found.floor.floor_ms) == (2.0, 0.5)
    assert found.floor.elapsed.ToMilliseconds() == 1500


async def test_the_floor_can_be_left_out(stub: ModelOptimizerStub) -> None:
    assert not (await stub.AnalyzeModel(await request_for(stub, skip_floor=True))).HasField("floor")


async def test_a_dry_run_leaves_nothing_behind(stub: ModelOptimizerStub, tmp_path: Path) -> None:
    await stub.AnalyzeModel(await request_for(stub))

    assert not list((tmp_path / "state/analyses").iterdir())


async def test_a_bad_field_is_named(stub: ModelOptimizerStub) -> None:
    missing = service_pb.AnalyzeModelRequest(model={"pt2_artifact": "artifacts/unknown"})
    empty = service_pb.AnalyzeModelRequest(budget={"batch": 0})

    assert list((await refusal(stub.AnalyzeModel(missing))).fields) == ["model.pt2_artifact"]
    assert list((await refusal(stub.AnalyzeModel(empty))).fields) == ["model", "budget.batch"]


@pytest.mark.parametrize(
    ("reason", "blame", "code"),
    [
        ("UNSAFE_MODEL", "caller", grpc.StatusCode.FAILED_PRECONDITION),
        ("OUT_OF_MEMORY", "machine", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("NEVER_HEARD_OF", "caller", grpc.StatusCode.FAILED_PRECONDITION),
        ("NEVER_HEARD_OF", "machine", grpc.StatusCode.INTERNAL),
    ],
)
async def test_what_the_worker_says_reaches_the_caller(
    tmp_path: Path, reason: str, blame: str, code: grpc.StatusCode
) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("error", reason, blame))) as stub:
        refused = await refusal(stub.AnalyzeModel(await request_for(stub)))

    assert (refused.code, refused.info.reason, refused.message) == (code, reason, "it cannot")
    assert refused.info.metadata["blame"] == blame


async def test_a_worker_that_dies_is_reported_and_the_server_lives(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("die", "11"))) as stub:
        request = await request_for(stub)
        for _ in range(2):
            refused = await refusal(stub.AnalyzeModel(request))
            assert (refused.code, refused.info.reason) == (grpc.StatusCode.INTERNAL, "WORKER_DIED")
            assert "SIGSEGV" in refused.message


async def test_a_dry_run_ends_with_its_time(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"), analysis_seconds=0.3, deadline_grace=0.1)
    async with running(settings) as stub:
        refused = await refusal(stub.AnalyzeModel(await request_for(stub)))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "TIME_LIMIT")


async def test_the_worker_goes_when_the_caller_does(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("sleep"))) as stub:
        call = stub.AnalyzeModel(await request_for(stub))
        workers: list[psutil.Process] = []
        async with asyncio.timeout(10):
            while not workers:
                await asyncio.sleep(0.02)
                workers = [child for child in psutil.Process().children() if "sleep.py" in " ".join(child.cmdline())]
        call.cancel()
        _, left = await asyncio.to_thread(psutil.wait_procs, workers, timeout=5)

        assert not left
        await eventually(lambda: not list((tmp_path / "state/analyses").iterdir()))


async def test_too_many_dry_runs_are_refused(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"), analysis_queue_limit=1)
    async with running(settings) as stub:
        request = await request_for(stub)
        calls = [stub.AnalyzeModel(request) for _ in range(3)]
        done, waiting = await asyncio.wait(
            [asyncio.ensure_future(refusal(call)) for call in calls], return_when=asyncio.FIRST_COMPLETED
        )
        refused = done.pop().result()
        for call in calls:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED")
