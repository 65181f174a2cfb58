from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from sqlalchemy import create_engine, text, update
from sqlalchemy.pool import NullPool

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from service.database import postgres as ours
from service.database.database import SCHEMA_VERSION, Database
from service.database.tables import SchemaRow
from service.doctor.state import look_at_database
from service.errors import DatabaseBusyError, DatabaseUnavailableError, DatabaseUrlError, StateVersionError
from service.jobs.job import NewJob, Progress
from service.jobs.store import JobStore
from service.settings import ServerSettings
from service.spec import JobSpec
from tests.service.jobs.test_leases import together
from tests.service.postgres import Postgres
from tests.service.server_harness import finished, job_request, refusal, running, settings_for, start_job

SPEC = JobSpec.model_validate({"model": {"pt2_artifact": "artifacts/some"}, "budget": {"fraction": 0.5}})


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://user@host/name", "starts with sqlite:/// or postgresql://, not with 'mysql'"),
        ("postgresql:user@host", "the URL of the database is none"),
        ("nonsense", "not with 'nonsense'"),
    ],
)
def test_other_databases_are_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(DatabaseUrlError, match=words):
        Database(url)


def test_a_password_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DatabaseUnavailableError) as caught:
        Database("postgresql://somebody:hush@/name?host=/nonexistent")
    assert "hush" not in str(caught.value) + caplog.text
    assert "somebody" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_the_driver_need_not_be_named(postgres_url: str, scheme: str) -> None:
    Database(postgres_url.replace("postgresql", scheme, 1)).close()


def test_servers_that_start_at_once_make_the_tables_once(postgres_url: str) -> None:
    opened: list[Database] = []
    together(*[lambda: opened.append(Database(postgres_url))] * 4)
    with opened[0].read() as session:
        assert len(session.scalars(text("select version from schema_version")).all()) == 1
    for database in opened:
        database.close()


def test_a_closed_database_opens_no_more_connections(database_url: str) -> None:
    database = Database(database_url)
    database.close()

    with pytest.raises(DatabaseUnavailableError, match="closed its database"), database.read():
        pass


def test_a_database_that_is_refused_leaves_no_connection(postgres_url: str) -> None:
    newer = Database(postgres_url)
    with newer.write() as session:
        session.execute(update(SchemaRow).values(version=SCHEMA_VERSION + 1))
    newer.close()

    with pytest.raises(StateVersionError):
        Database(postgres_url)

    name = postgres_url.rpartition("/")[2].partition("?")[0]
    looking = create_engine(postgres_url.replace("postgresql", "postgresql+psycopg", 1), poolclass=NullPool)
    count = text("select count(*) from pg_stat_activity where datname = :name and pid <> pg_backend_pid()")
    with looking.begin() as connection:
        others = connection.execute(count, {"name": name}).scalar()
        connection.execute(update(SchemaRow).values(version=SCHEMA_VERSION))
    assert others == 0


def test_a_database_of_schema_version_2_is_taken_over(postgres_url: str) -> None:
    Database(postgres_url).close()
    older = Database(postgres_url)
    with older.write() as session:
        session.execute(text("drop index ix_jobs_owned"))
        for statement in (
            "alter table jobs drop column runner, drop column lease_until",
            "create index ix_jobs_principal on jobs (principal)",
            "update schema_version set version = 2",
        ):
            session.execute(text(statement))
    older.close()
    taken = Database(postgres_url)
    store = JobStore(taken)
    job = store.create(NewJob(SPEC), 100)
    with taken.read() as session:
        indexes = session.scalars(text("select indexname from pg_indexes where tablename = 'jobs'")).all()
    assert "ix_jobs_owned" in indexes
    assert "ix_jobs_principal" not in indexes
    assert store.claim() == store.get(job.id)
    taken.close()


def test_what_needs_no_lock_does_not_wait_for_writers(postgres_url: str) -> None:
    database = Database(postgres_url)
    store = JobStore(database)
    job = store.create(NewJob(SPEC), 100)
    store.claim()
    with database.write() as session:
        session.execute(text("select 1"))
        store.record_progress(job.id, Progress(phase="tune", fraction=0.5))
        store.renew({job.id: 1})
    progress = store.get(job.id).progress
    assert progress is not None
    database.close()


def test_readers_cannot_write_by_mistake(postgres_url: str) -> None:
    database = Database(postgres_url)
    with pytest.raises(DatabaseUnavailableError), database.read() as session:  # as of a replica
        session.execute(update(SchemaRow).values(version=9))
    with database.write() as session:
        session.execute(update(SchemaRow).values(version=SchemaRow.version))
    database.close()


def test_a_writer_who_waits_too_long_is_told_so(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "LOCK_SECONDS", 0.1)
    database = Database(postgres_url)
    with database.write() as session:
        session.execute(text("select 1"))
        with pytest.raises(DatabaseBusyError, match="the database was busy"), database.write() as other:
            other.execute(text("select 1"))
    database.close()


def test_a_writer_who_hangs_does_not_hold_up_the_others(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "_STALL_SECONDS", 0.2)
    hanging, database = Database(postgres_url), Database(postgres_url)
    with pytest.raises(DatabaseUnavailableError), hanging.write() as session:  # noqa: PT012 (it is about what is in between)
        session.execute(text("update schema_version set version = 9"))
        JobStore(database).create(NewJob(SPEC), 100)
        session.execute(text("select 1"))
    with database.read() as session:
        assert session.scalar(text("select version from schema_version")) == SCHEMA_VERSION
    hanging.close()
    database.close()


def test_a_database_that_was_away_is_used_again(postgres: Postgres, postgres_url: str) -> None:
    database = Database(postgres_url)
    store = JobStore(database)
    job = store.create(NewJob(SPEC), 100)
    postgres.stop()
    for _ in range(2):
        with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
            store.get(job.id)
    postgres.start()

    assert store.get(job.id) == job
    database.close()


async def test_callers_learn_that_the_database_is_away_and_jobs_go_on_when_it_is_back(
    postgres: Postgres, postgres_url: str, tmp_path: Path
) -> None:
    async with running(settings_for(tmp_path, database_url=postgres_url)) as stub:
        request = await job_request(stub)
        name = (await start_job(stub)).name
        await finished(stub, name)
        postgres.stop()
        refused = await refusal(stub.GetOptimizationJob(service_pb.GetOptimizationJobRequest(name=name)))
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert refused.info.metadata["blame"] == "machine"
        assert "RetryInfo" in refused.details
        assert str(tmp_path) not in refused.message
        postgres.start()
        job = await finished(stub, (await stub.CreateOptimizationJob(request)).name)

    assert job.result.outcome


def test_the_doctor_tries_it(postgres_url: str, tmp_path: Path) -> None:
    settings = ServerSettings(state_dir=tmp_path, database_url=postgres_url)
    (found,) = look_at_database(settings)
    assert found.found == "opens and writes"
