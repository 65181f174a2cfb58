from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from tests.service.postgres import Postgres, running_postgres
from tests.service.server_harness import running, settings_for

if TYPE_CHECKING:
    from tests.service.gcs import Gcs
    from tests.service.s3 import S3

MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory where there is one: every change of a job is synced to the disk, and tests make thousands."""
    root = MEMORY if os.access(MEMORY, os.W_OK) else None
    with TemporaryDirectory(dir=root, prefix="shoal-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[ModelOptimizerStub]:
    """Talks to a server whose workers finish at once."""
    async with running(settings_for(tmp_path)) as stub:
        yield stub


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this run's own."""
    try:
        with running_postgres() as server:
            yield server
    except LookupError as exc:
        pytest.skip(str(exc))


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """An empty database of PostgreSQL."""
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shoal.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """An S3 of our own, with one bucket."""
    pytest.importorskip("moto", reason="moto, of the extra dev, is not installed")
    pytest.importorskip("s3fs", reason="s3fs, of the extra s3, is not installed")
    from tests.service.s3 import S3, surround

    server = S3()
    surround(monkeypatch, server.endpoint)
    server.client.create_bucket(Bucket=server.bucket)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gcs]:
    """A Google Cloud Storage of our own, with one bucket."""
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator, of the extra dev, is not installed")
    pytest.importorskip("gcsfs", reason="gcsfs, of the extra gcs, is not installed")
    from tests.service import gcs

    server = gcs.Gcs()
    gcs.surround(monkeypatch, server.port)
    try:
        yield server
    finally:
        server.stop()
