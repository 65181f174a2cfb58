"""A database that is taken away from under a server, and comes back."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.database.database import Database
from service.errors import DatabaseUnavailableError
from tests.service.server_harness import (
    Refusal,
    finished,
    reached,
    refusal,
    running,
    settings_for,
    start_job,
    upload,
    worker_command,
)

RUNNING = job_pb.OptimizationJob.STATE_RUNNING
SUCCEEDED = job_pb.OptimizationJob.STATE_SUCCEEDED


class Away:
    """Moves a database's files aside and back."""

    def __init__(self, state: Path) -> None:
        self._state, self._aside = state, state / "aside"

    def __enter__(self) -> None:
        self._aside.mkdir()
        for path in self._state.glob("shoal.db*"):
            path.rename(self._aside / path.name)

    def __exit__(self, *_: object) -> None:
        for path in self._state.glob("shoal.db*"):
            path.unlink()
        for path in self._aside.glob("*"):
            path.rename(self._state / path.name)
        self._aside.rmdir()


def test_no_new_database_is_made_in_the_place_of_one_that_is_gone(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'shoal.db'}")
    with Away(tmp_path), pytest.raises(DatabaseUnavailableError, match="SQLITE_CANTOPEN"):
        database.version()
    assert database.version()
    database.close()


def test_a_file_that_is_no_database_is_one_that_is_away(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'shoal.db'}")
    with Away(tmp_path):
        (tmp_path / "shoal.db").write_bytes(b"something else" * 1000)
        with pytest.raises(DatabaseUnavailableError, match="SQLITE_NOTADB"):
            database.version()
    assert database.version()
    database.close()


def test_a_database_that_has_lost_its_tables_is_away(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'shoal.db'}")
    database.close()
    with sqlite3.connect(tmp_path / "shoal.db") as other:
        other.execute("ALTER TABLE schema_version RENAME TO lost")
    other.close()
    with pytest.raises(DatabaseUnavailableError), database.write() as session:
        session.connection().exec_driver_sql("SELECT version FROM schema_version")
    database.close()


def test_one_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailableError):
        Database(f"sqlite:///{tmp_path / 'nowhere/shoal.db'}")


async def ask(stub: ModelOptimizerStub) -> Refusal:
    return await refusal(stub.ListOptimizationJobs(service_pb.ListOptimizationJobsRequest()))


async def test_calls_are_answered_with_when_to_try_again(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    async with running(settings) as stub:
        job = await start_job(stub)
        await finished(stub, job.name)
        with Away(settings.state_dir):
            refused = await ask(stub)
            sending = await refusal(upload(stub, b"some bytes"))
        found = await stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=job.name))

    for each in (refused, sending):
        assert (each.code, each.info.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert each.info.metadata["blame"] == "machine"
        retry = error_details_pb2.RetryInfo()
        assert each.details["RetryInfo"].Unpack(retry)
        assert retry.retry_delay.ToTimedelta().total_seconds() > 0
        assert str(tmp_path) not in each.message
    assert found.state == SUCCEEDED


async def test_a_job_that_ends_meanwhile_ends_when_it_is_back(tmp_path: Path) -> None:
    flag = tmp_path / "go on"
    settings = settings_for(tmp_path, worker_command=worker_command("waits", str(flag)))
    async with running(settings) as stub:
        job = await start_job(stub)
        await reached(stub, job.name, lambda job: job.progress.phase == "plan")
        with Away(settings.state_dir):
            flag.touch()
            done = settings.state_dir / job.name.replace("optimizationJobs", "jobs") / "out/report.json"
            async with asyncio.timeout(30):
                while not done.exists():  # noqa: ASYNC110 (another process writes it)
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
            assert (await ask(stub)).info.reason == "DATABASE_UNAVAILABLE"
        job = await finished(stub, job.name)

    assert (job.state, job.attempts) == (SUCCEEDED, 1)
