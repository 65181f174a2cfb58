"""ONNX Runtime on the processor."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import final

from deploy.runtimes.base import Runtime, Session, SessionSettings
from deploy.runtimes.onnxruntime_session import OnnxRuntimeSession, import_onnxruntime, make_options, start_session

_PROVIDERS = ("CPUExecutionProvider",)


@final
class OnnxRuntimeCpu(Runtime):
    """Runs `.onnx` files with ONNX Runtime's own processor kernels."""

    name = "onnxruntime"
    extra = "server"
    devices = ("cpu",)

    def version(self) -> str:
        """Returns ONNX Runtime's version."""
        return str(self._library().__version__)

    def load(self, path: Path, settings: SessionSettings) -> Session:
        """Returns the model in `path`, every graph optimisation on, operators one after the other."""
        library = self._library()
        session = start_session(library, path, make_options(library, settings), _PROVIDERS)
        return OnnxRuntimeSession(library, session, self.name, settings)

    def write_edges(self, path: Path, to: Path, batch: int) -> bool:
        """Writes the changes of layout that ONNX Runtime adds, as it tells in the model that it optimised."""
        from deploy.runtimes.onnxruntime_edges import write_edge_model

        library = self._library()
        options = make_options(library, SessionSettings())
        with TemporaryDirectory() as folder:
            optimised = Path(folder) / "optimised.onnx"
            options.optimized_model_filepath = str(optimised)
            start_session(library, path, options, _PROVIDERS)
            return write_edge_model(optimised, to, batch)

    def _library(self) -> ModuleType:
        return import_onnxruntime(self.name, self.extra)
