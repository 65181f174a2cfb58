"""A database of an older Shoal is taken over as it is."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import inspect

from service.database.database import SCHEMA_VERSION, Database
from service.database.tables import Base
from service.devices.work import DeviceWork, WorkState, WorkStore
from service.errors import NotFoundError, StateVersionError
from service.jobs.states import State
from service.jobs.store import JobStore
from service.storage.artifacts import ArtifactStore
from service.uploads.uploads import Uploads
from tests.service.server_harness import settings_for

# As Shoal made them in schema version 1, word for word.
VERSION_1 = """
CREATE TABLE schema_version (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE jobs ("row" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id VARCHAR(63) NOT NULL, request_id VARCHAR(36),
    request_hash VARCHAR(64) NOT NULL, spec JSON NOT NULL, display_name VARCHAR(256) NOT NULL,
    state VARCHAR(16) NOT NULL, progress JSON, result JSON, failure JSON, create_time DATETIME NOT NULL,
    start_time DATETIME, end_time DATETIME, attempts INTEGER NOT NULL, losses INTEGER NOT NULL,
    last_sequence BIGINT NOT NULL, UNIQUE (id), UNIQUE (request_id));
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE TABLE events (job_row INTEGER NOT NULL, sequence BIGINT NOT NULL, time DATETIME NOT NULL,
    kind VARCHAR(16) NOT NULL, body JSON NOT NULL, PRIMARY KEY (job_row, sequence),
    FOREIGN KEY(job_row) REFERENCES jobs ("row") ON DELETE CASCADE);
CREATE TABLE artifacts ("row" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, id VARCHAR(64) NOT NULL,
    kind VARCHAR(16) NOT NULL, filename VARCHAR(255) NOT NULL, size_bytes BIGINT NOT NULL,
    sha256 VARCHAR(64) NOT NULL, create_time DATETIME NOT NULL, UNIQUE (id));
CREATE UNIQUE INDEX ix_artifacts_content ON artifacts (sha256, kind) WHERE kind != 'RESULT';
CREATE TABLE uploads (id VARCHAR(64) NOT NULL, kind VARCHAR(16) NOT NULL, filename VARCHAR(255) NOT NULL,
    size_bytes BIGINT NOT NULL, sha256 VARCHAR(64) NOT NULL, committed_size BIGINT NOT NULL, artifact_id VARCHAR(64),
    update_time DATETIME NOT NULL, PRIMARY KEY (id), FOREIGN KEY(artifact_id) REFERENCES artifacts (id));
CREATE TABLE agents (name VARCHAR(63) NOT NULL, token_hash VARCHAR(64) NOT NULL, create_time DATETIME NOT NULL,
    session VARCHAR(64), device JSON, last_seen DATETIME, PRIMARY KEY (name), UNIQUE (token_hash));
INSERT INTO schema_version VALUES (1);
"""
MOMENT = "2026-01-02 03:04:05.000000"
SPEC = json.dumps({"model": {"pt2_artifact": "artifacts/older"}, "budget": {"fraction": 0.5}})


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The URL of a database with a job, an artifact and an upload in it."""
    path = tmp_path / "state/shoal.db"
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    connection.execute(
        "INSERT INTO jobs VALUES (7, 'job-old', NULL, 'h', ?, '', 'QUEUED', NULL, NULL, NULL, ?, NULL, NULL, 0, 0, 0)",
        (SPEC, MOMENT),
    )
    connection.execute("INSERT INTO artifacts VALUES (3, 'older', 'MODEL', 'net.pt2', 5, ?, ?)", ("ab" * 32, MOMENT))
    connection.execute("INSERT INTO uploads VALUES ('upload-old', 'DATA', 'd', 9, ?, 4, NULL, ?)", ("cd" * 32, MOMENT))
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


def test_what_was_there_belongs_to_local(old: str, tmp_path: Path) -> None:
    database = Database(old)
    jobs, artifacts = JobStore(database), ArtifactStore(database, f"file://{tmp_path / 'files'}")

    assert jobs.get("job-old", "local").principal == "local"
    assert artifacts.get("older", "local").principal == "local"
    with pytest.raises(NotFoundError):
        jobs.get("job-old", "alice")
    with pytest.raises(NotFoundError):
        artifacts.get("older", "alice")
    database.close()


def test_it_is_worked_with_as_if_it_were_new(old: str, tmp_path: Path) -> None:
    database = Database(old)
    uploads = Uploads(database, ArtifactStore(database, f"file://{tmp_path / 'files'}"), settings_for(
        tmp_path, upload_retention=1e9))  # fmt: skip
    assert uploads.status("upload-old").committed_size == 4
    taken = JobStore(database).claim()
    assert taken is not None
    assert (taken.id, taken.state) == ("job-old", State.RUNNING)
    database.close()


def test_its_tables_are_those_of_a_new_one(old: str, tmp_path: Path) -> None:
    for _ in range(2):  # the second time there is nothing left to do
        Database(old).close()
    fresh = Database(f"sqlite:///{tmp_path / 'fresh.db'}")
    taken = Database(old)
    with taken.read() as left, fresh.read() as right:
        found = [inspect(session.connection()) for session in (left, right)]
        for table in Base.metadata.tables:
            columns = [{column["name"]: str(column["type"]) for column in one.get_columns(table)} for one in found]
            indexes = [{index["name"] for index in one.get_indexes(table)} for one in found]
            assert columns[0] == columns[1]
            assert indexes[0] == indexes[1]
    fresh.close()
    taken.close()


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
def test_what_nobody_knows_is_left_alone(old: str, tmp_path: Path, version: int) -> None:
    path = tmp_path / "state/shoal.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE schema_version SET version = ?", (version,))
    connection.close()
    with pytest.raises(StateVersionError, match="use the Shoal that wrote it"):
        Database(old)


def test_device_work_of_version_4_was_worked_on_for_no_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shoal.db'}"
    database = Database(url)
    WorkStore(database).add(DeviceWork("w", "j", "edge", WorkState.WAITING, "run", {}, (), 0, "", None))
    database.close()
    with sqlite3.connect(tmp_path / "shoal.db") as other:
        other.execute("ALTER TABLE device_work DROP COLUMN worked")
        other.execute("UPDATE schema_version SET version = 4")
    other.close()
    database = Database(url)
    found = WorkStore(database).find("w")
    database.close()
    assert found is not None
    assert found.worked == 0.0
