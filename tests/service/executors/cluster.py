"""A real Ray cluster on this machine: a head that runs nothing, and nodes with one processor each."""

from __future__ import annotations

import os
import secrets
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from service.worker.environment import TOKEN_VARIABLE

# Before anything imports Ray. Whoever can talk to a cluster can run programs on it, so this one has a token of its own.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
STORE_BYTES = 80 << 20


class RayCluster:
    """Use it as a context manager."""

    def __init__(self) -> None:
        # Sockets' paths are short, and Ray adds sixty characters.
        self._folder = tempfile.TemporaryDirectory(prefix="sr-", dir="/tmp", ignore_cleanup_errors=True)
        self._cluster: Any = None
        self.nodes: list[Any] = []

    def __enter__(self) -> Self:
        from ray.cluster_utils import Cluster

        Path("/tmp/ray").mkdir(exist_ok=True)  # Ray notes the cluster there, wherever its own files are
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": self._folder.name}
        quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}  # to notice a dead node
        head |= {"_system_config": quick}
        self._cluster = Cluster(initialize_head=True, head_node_args=head | {"object_store_memory": STORE_BYTES})
        return self

    def __exit__(self, *_: object) -> None:
        # Ray leaves the pipes of the processes that it ends to the collector.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._cluster.shutdown()
        self._folder.cleanup()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, **resources: Any) -> Any:
        """Adds a node."""
        node = self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, **resources)
        self.nodes.append(node)
        return node

    def fill(self, count: int) -> None:
        """Adds nodes until there are so many."""
        while len(self.nodes) < count:
            self.add()

    def kill(self, node: Any) -> None:
        """Has a node die as a machine does: everything at once, nothing said."""
        self.nodes.remove(node)
        raylet = psutil.Process(raylet_of(node))
        for process in [*raylet.children(recursive=True), raylet]:
            process.kill()
        self._cluster.remove_node(node, allow_graceful=False)


def raylet_of(node: Any) -> int:
    """The process that stands for a node."""
    return int(node.all_processes["raylet"][0].process.pid)


def node_of(worker: int) -> int:
    """The raylet that a worker's process descends from."""
    return next(parent.pid for parent in psutil.Process(worker).parents() if parent.name() == "raylet")


def worker_of(root: Path) -> int:
    """The process of the worker that runs below a node's folder."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(TOKEN_VARIABLE, "").startswith(str(root)):
                return int(process.pid)
    raise AssertionError(f"no worker runs below {root}")
