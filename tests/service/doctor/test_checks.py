"""The doctor's checks on this machine, and on what is broken on purpose."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

import pytest

from deploy.measure import turn
from service.client.channel import Access
from service.database.database import SCHEMA_VERSION, Database
from service.doctor import machine, packages, runtimes, server, state
from service.doctor.finding import Finding, Level, examine
from service.server import create
from service.server.server import Server
from service.settings import ServerSettings
from tests.service.server_harness import settings_for


def by_name(found: list[Finding]) -> dict[str, Finding]:
    return {one.name: one for one in found}


def test_runtimes_are_tried_on_a_model() -> None:
    found = by_name(examine("runtimes", runtimes.look_at_runtimes))

    assert (found["onnxruntime"].level, "runs a model" in found["onnxruntime"].found) == (Level.OK, True)


def test_every_extra_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packages.NEEDED, "server", ("torch", "no-such-package"))
    found = by_name(examine("packages", packages.look_at_packages))

    assert set(found) == set(packages.NEEDED)
    assert found["base"].level is Level.OK
    assert (found["server"].level, found["server"].found) == (Level.WARN, "not installed: no-such-package")
    assert "shoal[server]" in found["server"].advice


@pytest.mark.parametrize(
    ("variables", "level", "text"),
    [
        ({}, Level.OK, "not asked for"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, Level.OK, "sent as"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, Level.WARN, "'otlp' only"),
    ],
)
def test_traces_are_told_as_the_variables_ask(
    variables: dict[str, str], level: Level, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (found,) = examine("traces", packages.look_at_traces)

    assert found.level is level
    assert text in found.found


def test_a_gpu_that_is_not_there_is_no_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = by_name(examine("gpu", runtimes.look_at_gpu))

    assert (found["driver"].level, found["driver"].found) == (Level.OK, "no NVIDIA driver")


def test_a_driver_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Driver/library version mismatch' >&2\nexit 18\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = by_name(examine("gpu", runtimes.look_at_gpu))

    assert (found["driver"].level, found["driver"].found) == (
        Level.WARN,
        "nvidia-smi fails: Driver/library version mismatch",
    )


def state_checks(settings: ServerSettings) -> dict[str, Finding]:
    found = [
        *examine("database", lambda: state.look_at_database(settings)),
        *examine("storage", lambda: state.look_at_store(settings)),
        *examine("storage", lambda: state.look_at_disk(settings)),
    ]
    return by_name(found)


def test_a_state_folder_that_is_not_there_yet_is_tried_and_not_made(tmp_path: Path) -> None:
    found = state_checks(ServerSettings(state_dir=tmp_path / "some/where", min_free_bytes=0))

    assert [found[name].level for name in ("database", "store")] == [Level.OK, Level.OK]
    assert "none yet" in found["database"].found
    assert not list(tmp_path.iterdir())


def test_a_state_folder_is_left_as_it_was(tmp_path: Path) -> None:
    settings = ServerSettings(state_dir=tmp_path, min_free_bytes=0)
    (tmp_path / "artifacts").mkdir()
    Database(settings.database).close()
    found = state_checks(settings)

    assert (found["database"].found, found["store"].level) == ("opens and writes, write-ahead log", Level.OK)
    assert not list((tmp_path / "artifacts").iterdir())


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_database_of_another_version_is_looked_at_only(tmp_path: Path, version: int) -> None:
    settings = ServerSettings(state_dir=tmp_path, min_free_bytes=0)
    Database(settings.database).close()
    with sqlite3.connect(tmp_path / "shoal.db") as other:
        other.execute("UPDATE schema_version SET version = ?", (version,))
        other.execute("DROP TABLE holds")
    other.close()
    found = state_checks(settings)["tables"]
    with sqlite3.connect(tmp_path / "shoal.db") as other:
        left = other.execute("SELECT version FROM schema_version").fetchall()
        tables = {name for (name,) in other.execute("SELECT name FROM sqlite_master")}
    other.close()

    assert (left, "holds" in tables) == ([(version,)], False)
    assert found.level is (Level.WARN if version < SCHEMA_VERSION else Level.FAIL)
    if version < SCHEMA_VERSION:
        assert found.found == f"written by version {version}; a server of this version upgrades it at its next start"


def test_a_database_without_tables_is_left_without(tmp_path: Path) -> None:
    (tmp_path / "shoal.db").touch()
    found = state_checks(ServerSettings(state_dir=tmp_path, min_free_bytes=0))

    assert "a server makes them" in found["tables"].found
    with sqlite3.connect(tmp_path / "shoal.db") as other:
        assert not other.execute("SELECT name FROM sqlite_master").fetchall()
    other.close()


def test_a_broken_database_and_store_are_told(tmp_path: Path) -> None:
    (tmp_path / "shoal.db").write_bytes(b"this is no database" * 100)
    (tmp_path / "artifacts").write_text("no folder")
    found = state_checks(ServerSettings(state_dir=tmp_path))

    assert found["database"].level is Level.FAIL
    assert "not a database" in found["database"].found
    assert found["storage"].level is Level.FAIL


def test_a_disk_without_room_is_told(tmp_path: Path) -> None:
    found = state_checks(ServerSettings(state_dir=tmp_path, min_free_bytes=1 << 60))

    assert (found["disk"].level, found["disk"].advice) == (Level.FAIL, "free some space")


def test_the_machine_and_its_clock_are_described() -> None:
    found = by_name([*examine("machine", machine.look_at_machine), *examine("clock", machine.look_at_clock)])

    assert set(found) == {"cores", "governor", "memory", "resolution", "noise"}
    assert Level.FAIL not in {one.level for one in found.values()}


def test_a_measurement_under_way_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(turn.tempfile, "tempdir", str(tmp_path))
    free = examine("timing", machine.look_at_turn)
    handle = os.open(turn.lock_file(), os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    held = examine("timing", machine.look_at_turn)
    os.close(handle)

    assert (free[0].found, held[0].level) == ("free", Level.OK)
    assert "being measured" in held[0].found


def test_a_lock_that_cannot_be_opened_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(turn.tempfile, "tempdir", str(tmp_path))
    turn.lock_file().symlink_to(tmp_path / "elsewhere")
    (found,) = examine("timing", machine.look_at_turn)

    assert (found.level, found.meaning) == (Level.FAIL, "nothing can be measured")


async def asked(running: Server) -> dict[str, Finding]:
    import asyncio

    port = await running.start()
    try:
        address = f"127.0.0.1:{port}"
        return by_name(
            await asyncio.to_thread(lambda: examine("server", lambda: server.look_at_server(address, Access)))
        ) | {"address": Finding("", address, Level.OK, "")}
    finally:
        await running.stop()


async def test_a_server_tells_whether_it_is_ready_and_its_time(tmp_path: Path) -> None:
    found = await asked(create(settings_for(tmp_path)))

    assert found[found["address"].name].level is Level.OK
    assert (found["system"].level, found["system"].found[:3]) == (Level.OK, "0.0")


async def test_a_server_that_is_not_ready_is_told(tmp_path: Path) -> None:
    found = await asked(create(settings_for(tmp_path, min_free_bytes=1 << 60)))

    assert (found[found["address"].name].level, found[found["address"].name].found) == (Level.FAIL, "not ready")


def test_a_server_that_is_not_there_is_told() -> None:
    (found,) = examine("server", lambda: server.look_at_server("127.0.0.1:1", Access))

    assert (found.level, found.found) == (Level.FAIL, "no answer: UNAVAILABLE")


@pytest.mark.parametrize(("told", "level"), [(1000.2, Level.OK), (1030.0, Level.WARN), (970.0, Level.WARN)])
def test_clocks_are_compared_as_far_as_the_way_lets_tell(told: float, level: Level) -> None:
    assert server.compare_clocks(told, 1000.0, 1000.4).level is level
    assert server.compare_clocks(told, 960.0, 1040.4).level is Level.OK
