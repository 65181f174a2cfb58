"""A registry on a cluster: ten models, two nodes, and one of these dies in the middle."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.client import Client
from tests.service.executors.cluster import RayCluster, node_of, raylet_of, worker_of
from tests.service.executors.conftest import cluster  # noqa: F401 (a fixture)
from tests.service.registries.mlflow_models import register_onnx
from tests.service.server_harness import worker_command
from tests.service.server_process import ServerProcess

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its libraries' own


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_models_are_optimised_once_each_though_a_node_dies(
    mlflow_client: Any,
    tracking_uri: str,
    cluster: RayCluster,  # noqa: F811
    tmp_path: Path,
) -> None:
    for number in range(10):
        register_onnx(mlflow_client, f"net-{number}", b"network %d" % number, shoal__budget="0.5x")
    cluster.fill(2)
    settings = {
        "executor": "ray",
        "ray_address": cluster.address,
        "ray_node_dir": str(tmp_path / "node"),
        "worker_command": worker_command("roams", "2"),
        "workers": 10,
    }
    with ServerProcess(tmp_path / "state", **settings) as server:
        with _batch(server, tracking_uri, tmp_path) as first:
            _until(lambda: _results(mlflow_client) >= 2)
            cluster.kill(_busy(cluster, tmp_path / "node"))
            assert first.wait(400) == 0
        jobs, versions = _jobs(server), _results(mlflow_client)
        with _batch(server, tracking_uri, tmp_path) as second:
            assert second.wait(200) == 0
        assert (_jobs(server), _results(mlflow_client)) == (jobs, versions)

    assert (len(jobs), versions) == (10, 10)
    assert set(jobs.values()) <= {1, 2}
    assert 2 in jobs.values()


def _busy(nodes: RayCluster, root: Path) -> Any:
    """A node that works on a job."""
    while True:
        # Between two jobs there is none, and one that ends just now has no parents.
        with suppress(AssertionError, StopIteration, psutil.Error):
            raylet = node_of(worker_of(root))
            return next(node for node in nodes.nodes if raylet_of(node) == raylet)
        time.sleep(0.05)


def _batch(server: ServerProcess, tracking_uri: str, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", "-m", "service.cli", "batch", "mlflow", "--tracking-uri", tracking_uri]
    return subprocess.Popen([*command, "--server", server.address, "--out", str(folder / "out"), "--jobs", "10"])


def _results(client: Any) -> int:
    """Versions that Shoal wrote."""
    return sum(
        len(client.search_model_versions(f"name='{model.name}'"))
        for model in client.search_registered_models()
        if model.name.startswith("net-") and model.name.endswith("-shoal")
    )


def _jobs(server: ServerProcess) -> dict[str, int]:
    """The attempts at every job, by name."""
    with Client(server.address) as client:
        return {job.name: job.attempts for job in client.list()}


def _until(holds: Callable[[], bool], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.2)
