"""The environment of a worker process: little of the server's, and its own place for everything."""

from __future__ import annotations

import os
import site
from pathlib import Path

import service
from deploy.measure.turn import LOCK_VARIABLE, make_lock_file
from service.worker.messages import WorkOrder

TOKEN_VARIABLE = "SHOAL_WORKER"  # noqa: S105 (no secret: its value, the job's folder, marks the processes of one worker)

# What a worker may know of the server's environment. No credentials, no proxies, nothing that steers Python.
_PASSED = (
    "CUDA_VISIBLE_DEVICES",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PATH",
    "TZ",
    "VIRTUAL_ENV",
)


def worker_environment(order: WorkOrder) -> dict[str, str]:
    """Returns the environment of a worker: home and temporary files in the job's folder, caches in the shared one."""
    home, temporary = order.folder / "home", order.folder / "tmp"
    for folder in (home, temporary, order.cache_folder):
        folder.mkdir(parents=True, exist_ok=True)
    cache = order.cache_folder
    return {name: os.environ[name] for name in _PASSED if name in os.environ} | {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "XDG_CACHE_HOME": str(cache),
        "HF_HOME": str(cache / "huggingface"),
        # Written per job: what one job decoded from its data is nobody else's.
        "HF_DATASETS_CACHE": str(order.folder / "tmp" / "datasets"),
        "TORCH_HOME": str(cache / "torch"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(Path(service.__file__).resolve().parent.parent),
        # HOME has moved, and packages may be installed under the old one.
        "PYTHONUSERBASE": site.getuserbase() or "",
        "PYTHONUNBUFFERED": "1",
        # One for all that measure on this machine, though each has a folder of its own for temporary files.
        LOCK_VARIABLE: str(make_lock_file()),
        TOKEN_VARIABLE: str(order.folder),
    }
