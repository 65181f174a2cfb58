"""Imports TensorRT, once, with what must hold of it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from deploy.engines.versions import check_supported
from deploy.errors import RuntimeMissingError


def import_tensorrt() -> ModuleType:
    """Returns the library.

    Raises:
        RuntimeMissingError: If it is not installed, or of a version that Shoal does not drive.
    """
    try:
        import tensorrt
    except ImportError as exc:
        msg = (
            "runtime 'tensorrt' is not installed on this machine: pip install 'shoal[tensorrt]' (its libraries come "
            "from NVIDIA's package index; on a Jetson they come with JetPack)"
        )
        raise RuntimeMissingError(msg) from exc
    check_supported(str(tensorrt.__version__))
    return tensorrt  # type: ignore[no-any-return]


def make_log(library: Any) -> tuple[Any, list[str]]:
    """Returns a logger for TensorRT, and the list that its warnings and errors go to."""
    messages: list[str] = []
    kept = (library.ILogger.WARNING, library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR)

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in kept:
                messages.append(message)

    return Log(), messages


def make_profiler(library: Any) -> Any:
    """Returns a profiler for an execution context; its `seconds` are the times of each run, by the layer's name."""

    class Profiler(library.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            library.IProfiler.__init__(self)
            self.seconds: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.seconds.setdefault(layer_name, []).append(ms * 1e-3)

    return Profiler()
