"""What a figure was measured with."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxsim", "onnxruntime")


@cache
def describe() -> dict[str, object]:
    """Returns commit, versions and kind of processor; nothing that names this machine."""
    return {
        "commit": _commit(),
        "versions": {name: version(name) for name in _PACKAGES},
        "processor": f"{_processor()}, {os.cpu_count()} cores",
    }


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S607
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
