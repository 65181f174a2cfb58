"""Finds timing processes through /proc."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest


def children() -> set[int]:
    path = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    every = [*Path("/proc/self/task").glob("*/children"), path]
    return {int(pid) for file in every if file.exists() for pid in file.read_text().split()}


def workers(before: set[int]) -> list[int]:
    def is_worker(pid: int) -> bool:
        try:
            return b"deploy.measure.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    return [pid for pid in children() - before if is_worker(pid)]


def wait_for_worker(before: set[int]) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := workers(before):
            return found[0]
        time.sleep(0.02)
    raise AssertionError("the timing process did not start")


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="finds the timing process through /proc")
