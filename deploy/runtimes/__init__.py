"""The runtimes that Shoal can run and time models on. The registry is explicit: one line per runtime."""

from __future__ import annotations

from deploy.errors import RuntimeMissingError
from deploy.runtimes.base import LayerTime, Runtime, RuntimeInfo, Session, SessionSettings
from deploy.runtimes.onnxruntime_cpu import OnnxRuntimeCpu
from deploy.runtimes.openvino_cpu import OpenVinoCpu

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (OnnxRuntimeCpu(), OpenVinoCpu())}

UNSUPPORTED: dict[str, str] = {
    "tensorrt": "engines are built and run on NVIDIA devices, and this version cannot drive one",
}
"""Runtimes that users ask for and that cannot be had in this version, with the reason."""

__all__ = [
    "RUNTIMES",
    "UNSUPPORTED",
    "LayerTime",
    "Runtime",
    "RuntimeInfo",
    "Session",
    "SessionSettings",
    "find_runtime",
]


def find_runtime(name: str) -> Runtime:
    """Returns the runtime called `name`.

    Raises:
        RuntimeMissingError: If there is none; the message says why and which ones there are.
    """
    if name in RUNTIMES:
        return RUNTIMES[name]
    reason = UNSUPPORTED.get(name, "there is no runtime of that name")
    msg = f"runtime '{name}' cannot be used: {reason}; choose one of {', '.join(sorted(RUNTIMES))}"
    raise RuntimeMissingError(msg)
