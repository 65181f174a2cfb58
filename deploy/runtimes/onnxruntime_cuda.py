"""ONNX Runtime on NVIDIA GPUs, with its CUDA provider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, final

from deploy.devices import parse_device
from deploy.errors import RuntimeMissingError
from deploy.gpu import find_gpu
from deploy.runtimes.base import Runtime, Session, SessionSettings
from deploy.runtimes.onnxruntime_failures import classify_device_failure
from deploy.runtimes.onnxruntime_session import (
    OnnxRuntimeSession,
    Provider,
    import_onnxruntime,
    make_options,
    start_session,
)

CUDA = "CUDAExecutionProvider"
_PROCESSOR = "CPUExecutionProvider"


@final
class OnnxRuntimeCuda(Runtime):
    """Runs `.onnx` files with ONNX Runtime's CUDA kernels, in the file's own precision."""

    name = "onnxruntime"
    extra = "cuda"
    devices = ("cuda",)
    load_seconds = 60.0

    def version(self) -> str:
        """Returns ONNX Runtime's version."""
        return str(self._library().__version__)

    def load(self, path: Path, settings: SessionSettings) -> Session:
        """Returns the model in `path`. What CUDA does not know runs on the processor, as ONNX Runtime divides it."""
        library = self._library()
        require_provider(library, CUDA, self.extra)
        find_gpu(parse_device(settings.device).index)
        preload_libraries(library)
        options, providers = make_options(library, settings), list_providers(settings)
        session = start_session(library, path, options, providers, classify_device_failure)
        check_providers(session.get_providers(), CUDA, self.extra)
        return OnnxRuntimeSession(library, session, self.name, settings)

    def write_edges(self, path: Path, to: Path, batch: int) -> bool:  # noqa: ARG002
        """Writes nothing: inputs and outputs lie on the device, and what happens to their layout there is not told."""
        self._library()
        return False

    def _library(self) -> ModuleType:
        return import_onnxruntime(self.name, self.extra)


def list_providers(settings: SessionSettings) -> list[Provider]:
    """Returns the CUDA provider for the settings' device, and the processor for what it does not know.

    TF32 is off: it computes float32 networks with ten bits of mantissa, which is another precision than the file's.
    """
    options = {
        "device_id": str(parse_device(settings.device).index),
        "use_tf32": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
    }
    return [(CUDA, options), _PROCESSOR]


def require_provider(library: ModuleType, provider: str, extra: str) -> None:
    """Makes sure that this build of ONNX Runtime has a provider.

    Raises:
        RuntimeMissingError: It has not; the message says what it has and what to install.
    """
    found = library.get_available_providers()
    if provider not in found:
        msg = (
            f"the ONNX Runtime {library.__version__} that is installed has no {provider}, only {', '.join(found)}: "
            f"pip uninstall onnxruntime, then pip install 'shoal[{extra}]' (the two packages hold the same files)"
        )
        raise RuntimeMissingError(msg)


def check_providers(found: Sequence[str], wanted: str, extra: str) -> None:
    """Makes sure that a session runs on the provider that was asked for: ONNX Runtime leaves out those that fail.

    Raises:
        RuntimeMissingError: It does not.
    """
    if wanted not in found:
        msg = (
            f"ONNX Runtime could not start {wanted} and would run on {', '.join(found)} instead, which is refused: "
            f"its libraries (CUDA, cuDNN, TensorRT) are missing, or of versions that this build does not take; "
            f"pip install 'shoal[{extra}]' brings what is on the package index"
        )
        raise RuntimeMissingError(msg)


def preload_libraries(library: Any) -> None:
    """Loads CUDA and cuDNN from NVIDIA's Python packages where they are installed; else the system's are found."""
    load = getattr(library, "preload_dlls", None)  # since 1.21
    if load is not None:
        load()
