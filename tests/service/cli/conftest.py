from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.cli.command import Ask, shoal_here
from tests.service.server_process import ServerProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests of commands; its workers do as the job's seed says."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def ask(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs a command in this process, against that server."""
    return lambda *arguments: shoal_here(capsys, *arguments, "--server", server.address)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that passes for a model with workers that do not look into it."""
    path = tmp_path / "net.pt2"
    path.write_bytes(b"a model")
    return path
