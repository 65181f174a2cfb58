"""A Ray cluster with a real autoscaler, which starts nodes on this machine when something asks for them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from tests.service.executors import cluster as plain  # its surroundings come before anything imports Ray

_UNUSED = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
_UNUSED += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude")


class AutoscaledCluster:
    """Use it as a context manager. The head runs nothing; there may be two nodes, with one processor each."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sa-", dir="/tmp", ignore_cleanup_errors=True)
        self.address = f"{_own_address()}:{_free_port()}"

    def __enter__(self) -> Self:
        folder = Path(self._folder.name)
        config = folder / "autoscaling.json"
        config.write_text(json.dumps(_config(self.address)))
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--num-cpus=0"]
        command += [f"--port={self.address.rpartition(':')[2]}", f"--temp-dir={folder / 'r'}"]
        command += [f"--autoscaling-config={config}", "--include-dashboard=false"]
        command += [f"--object-store-memory={plain.STORE_BYTES}"]
        surroundings = os.environ | {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
        subprocess.run(command, env=surroundings, check=True, capture_output=True)
        return self

    def __exit__(self, *_: object) -> None:
        # Not `ray stop`, which ends every cluster on the machine.
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if self._folder.name in " ".join(process.cmdline()):
                    process.kill()
        self._folder.cleanup()


def _own_address() -> str:
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _config(address: str) -> dict[str, Any]:
    nodes = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": plain.STORE_BYTES},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 2,
        },
    }
    return {
        "cluster_name": "autoscaled",
        "provider": {"type": "fake_multinode", "gcs_address": address, "disable_node_updaters": True},
        "available_node_types": nodes,
        "head_node_type": "ray.head.default",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "rsync_filter": [],
        **{name: [] for name in _UNUSED},
    }
