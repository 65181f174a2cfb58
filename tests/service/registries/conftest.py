from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.server_process import ServerProcess

SERVER = Path(__file__).parent / "mlflow_server.py"


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server."""
    if importlib.util.find_spec("mlflow") is None or importlib.util.find_spec("flask") is None:
        pytest.skip("MLflow and its server are not installed")
    folder = tmp_path_factory.mktemp("mlflow")
    command = [sys.executable, "-W", "ignore", str(SERVER), str(folder)]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, (folder / "log").read_text()
        yield address
        process.kill()


@pytest.fixture
def mlflow_client(tracking_uri: str) -> Any:
    """MLflow's own client of that server."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server; its workers do as the job's seed says."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server
