from __future__ import annotations

import sqlite3
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.worker.failures import failure_of, has_died
from service.worker.messages import ErrorEvent
from service.worker.process import Exit
from tests.service.server_harness import (
    eventually,
    finished,
    follow,
    reached,
    refusal,
    running,
    settings_for,
    start_job,
    worker_command,
)

State = job_pb.OptimizationJob.State


@pytest.mark.parametrize(
    ("command", "state", "reason", "words"),
    [
        (("die", "9"), State.STATE_FAILED, "WORKER_DIED", "SIGKILL"),
        (("die", "6"), State.STATE_FAILED, "WORKER_DIED", "SIGABRT"),
        (("die", "50"), State.STATE_FAILED, "WORKER_DIED", "signal 50"),
        (("die", "exit", "3"), State.STATE_FAILED, "WORKER_DIED", "status 3"),
        (("die", "exit", "0"), State.STATE_FAILED, "WORKER_DIED", "without a result"),
        (("garbage", "text"), State.STATE_FAILED, "WORKER_PROTOCOL", "no event"),
        (("garbage", "result"), State.STATE_FAILED, "WORKER_PROTOCOL", "announced a result"),
        (("finish", "forged"), State.STATE_FAILED, "WORKER_PROTOCOL", "model.onnx is not the file"),
        (("error", "UNSAFE_MODEL", "caller"), State.STATE_FAILED, "UNSAFE_MODEL", "it cannot"),
        (("error", "TIME_LIMIT", "caller"), State.STATE_EXPIRED, "TIME_LIMIT", "it cannot"),
    ],
)
async def test_a_job_without_a_result_says_why(
    tmp_path: Path, command: tuple[str, ...], state: State.ValueType, reason: str, words: str
) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command(*command))) as stub:
        job = await finished(stub, (await start_job(stub)).name)

    assert (job.state, job.error.reason) == (state, reason)
    assert words in job.error.message
    assert str(tmp_path) not in job.error.message
    assert not job.HasField("result")
    assert job.HasField("end_time")


@pytest.mark.parametrize(
    ("command", "retries", "state", "attempts"),
    [
        (("keeper", "2"), 2, State.STATE_SUCCEEDED, 3),
        (("keeper", "3"), 2, State.STATE_FAILED, 3),
        (("keeper", "1"), 0, State.STATE_FAILED, 1),
        (("keeper", "1", "stuck"), 2, State.STATE_FAILED, 2),
        (("keeper", "0", "stuck"), 2, State.STATE_FAILED, 1),
    ],
)
async def test_a_job_whose_worker_died_goes_on_while_it_gets_further(
    tmp_path: Path, command: tuple[str, ...], retries: int, state: State.ValueType, attempts: int
) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command(*command), worker_retries=retries)
    async with running(settings) as stub:
        job = await finished(stub, (await start_job(stub)).name)

    assert (job.state, job.attempts) == (state, attempts)
    assert job.error.reason == ("WORKER_DIED" if state == State.STATE_FAILED else "")


async def test_deaths_of_workers_are_counted_over_all_servers(tmp_path: Path) -> None:
    """The first worker dies, the second is stopped with its server, and the third dies under the next server."""
    settings = settings_for(tmp_path, worker_command=worker_command("fickle"), worker_retries=1)
    async with running(settings) as stub:
        name = (await start_job(stub)).name
        await reached(stub, name, lambda job: job.progress.metrics.get("attempt") == 2)
    async with running(settings) as stub:
        job = await finished(stub, name)

    assert (job.state, job.error.reason, job.attempts) == (State.STATE_FAILED, "WORKER_DIED", 3)


async def test_a_job_that_goes_on_gets_what_is_left_of_its_time(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("keeper", "2"))) as stub:
        job = await start_job(stub)
        story = await follow(stub, job.name)
    limits = [event.progress.metrics["limit"] for event in story if event.HasField("progress")]

    assert limits == [job.spec.time_limit.ToSeconds() - spent for spent in (0, 5, 10)]


async def test_a_worker_that_cannot_be_started_fails_the_job(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, worker_command=("/nonexistent",))) as stub:
        job = await finished(stub, (await start_job(stub)).name)

    assert (job.state, job.error.reason, job.error.blame) == (State.STATE_FAILED, "INTERNAL", "shoal")
    assert "nonexistent" not in job.error.message


async def test_a_job_whose_model_is_gone_fails(tmp_path: Path) -> None:
    async with running(settings_for(tmp_path, worker_command=worker_command("sleep"))) as stub:
        await start_job(stub)
        waiting = await start_job(stub)
    for blob in (tmp_path / "state/artifacts").rglob("*"):
        if blob.is_file() and blob.name != ".shoal":
            blob.unlink()
    async with running(settings_for(tmp_path)) as stub:
        job = await finished(stub, waiting.name)

    assert (job.state, job.error.reason) == (State.STATE_FAILED, "ARTIFACT_DAMAGED")


async def test_jobs_run_one_after_the_other_in_order(stub: ModelOptimizerStub) -> None:
    names = [(await start_job(stub)).name for _ in range(3)]
    jobs = [await finished(stub, name) for name in names]

    for earlier, later in pairwise(jobs):
        assert earlier.end_time.ToNanoseconds() <= later.start_time.ToNanoseconds()


async def test_a_finished_job_keeps_its_log_only(stub: ModelOptimizerStub, tmp_path: Path) -> None:
    job = await start_job(stub)
    await follow(stub, job.name)
    folder = tmp_path / "state/jobs" / job.name.rpartition("/")[2]
    await eventually(lambda: [path.name for path in folder.iterdir()] == ["log"])


def test_an_announced_error_counts_more_than_the_exit_status() -> None:
    error = ErrorEvent(reason="BAD_MODEL", message="no", blame="caller")

    assert failure_of(Exit(error=error, returncode=1), 5).reason == "BAD_MODEL"


def test_an_expired_job_says_how_long_it_had() -> None:
    failure = failure_of(Exit(returncode=-9, expired=True), 3600)

    assert failure.reason == "TIME_LIMIT"
    assert "3600 s" in failure.message


async def test_a_damaged_row_stops_neither_the_server_nor_its_secrets(stub: ModelOptimizerStub, tmp_path: Path) -> None:
    good = await start_job(stub)
    await finished(stub, good.name)
    with sqlite3.connect(tmp_path / "state/shoal.db") as database:
        damaged = "update jobs set spec = '{\"model\": {}}'"
        database.execute(damaged)
    database.close()
    request = service_pb.GetOptimizationJobRequest(name=good.name)
    refused = await refusal(stub.GetOptimizationJob(request))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert refused.info.metadata["error_id"] in refused.message
    assert "pydantic" not in refused.message
    assert str(tmp_path) not in refused.message
    assert (await finished(stub, (await start_job(stub)).name)).state == State.STATE_SUCCEEDED


async def test_the_queue_goes_on_once_the_database_is_repaired(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def rename(before: str, after: str) -> None:
        with sqlite3.connect(tmp_path / "state/shoal.db") as database:
            database.execute(f"alter table events rename column {before} to {after}")
        database.close()

    async with running(settings_for(tmp_path, worker_command=worker_command("sleep"))) as stub:
        first, second = await start_job(stub), await start_job(stub)
        await reached(stub, first.name, lambda job: job.progress.phase == "tune")
    rename("body", "hidden")
    async with running(settings_for(tmp_path)) as stub:
        await eventually(lambda: "cannot take the next job" in caplog.text)
        rename("hidden", "body")
        job = await finished(stub, second.name)

    assert job.state == State.STATE_SUCCEEDED


@pytest.mark.parametrize(
    ("ended", "died"),
    [
        (Exit(returncode=-9), True),
        (Exit(returncode=3), True),
        (Exit(returncode=-9, expired=True), False),
        (Exit(returncode=-15, stopped=True), False),
        (Exit(returncode=-9, garbage="text"), False),
        (Exit(returncode=1, error=ErrorEvent(reason="BAD_MODEL", message="x", blame="caller")), False),
    ],
)
def test_a_worker_that_was_ended_has_not_died(ended: Exit, died: bool) -> None:
    assert has_died(ended) is died
