"""Health says whether a server can do its work: broken for real, and mended."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.server import create
from service.server.readiness import find_room
from service.settings import ServerSettings
from tests.service.server_harness import settings_for

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """What the health service says."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = health_pb2_grpc.HealthStub(channel)

    async def __call__(self, service: str = "shoal.v1.ModelOptimizer") -> int:
        return (await self._stub.Check(health_pb2.HealthCheckRequest(service=service))).status

    async def becomes(self, status: int) -> None:
        async with asyncio.timeout(20):
            while await self() != status:  # noqa: ASYNC110 (nobody sets an event)
                await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(tmp_path: Path, **changes: Any) -> AsyncIterator[tuple[Health, ServerSettings]]:
    settings = settings_for(tmp_path, readiness_interval=0.05, **changes)
    server = create(settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Health(channel), settings
    finally:
        await server.stop()


async def test_a_store_that_cannot_be_written_is_told_and_so_is_its_return(tmp_path: Path) -> None:
    async with serving(tmp_path) as (health, settings):
        assert await health() == SERVING
        artifacts = settings.state_dir / "artifacts"
        artifacts.rename(settings.state_dir / "elsewhere")
        artifacts.write_text("no folder")
        await health.becomes(NOT_SERVING)
        assert await health("shoal.v1.DeviceAgents") == NOT_SERVING
        assert await health("") == SERVING

        artifacts.unlink()
        (settings.state_dir / "elsewhere").rename(artifacts)
        await health.becomes(SERVING)


async def test_a_database_that_cannot_be_written_is_told_and_so_is_its_return(tmp_path: Path) -> None:
    async with serving(tmp_path, readiness_patience=0.2) as (health, settings):
        with sqlite3.connect(settings.state_dir / "shoal.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            await health.becomes(NOT_SERVING)
            assert await health("") == SERVING
            other.execute("ROLLBACK")
        other.close()
        await health.becomes(SERVING)


async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path, min_free_bytes=1 << 60) as (health, _):
        assert await health() == NOT_SERVING
        assert await health("") == SERVING


def test_room_is_measured_where_the_state_is(tmp_path: Path) -> None:
    find_room(tmp_path, 1)
    with pytest.raises(OSError, match="kept in reserve"):
        find_room(tmp_path, 1 << 60)
