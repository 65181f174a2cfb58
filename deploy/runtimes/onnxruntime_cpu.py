"""ONNX Runtime on the processor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import final

from deploy.runtimes.base import WARM_UP_RUNS, LayerTime, Runtime, Session, SessionSettings
from deploy.runtimes.onnxruntime_session import OnnxRuntimeSession, import_onnxruntime, make_options, start_session
from deploy.tensors import Array

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

    def profile(
        self, path: Path, settings: SessionSettings, inputs: Sequence[Array], runs: int
    ) -> tuple[LayerTime, ...] | None:
        """Returns what each operator takes, from the trace that ONNX Runtime writes of a session."""
        from deploy.runtimes.onnxruntime_profile import read_trace

        library = self._library()
        options = make_options(library, settings)
        with TemporaryDirectory() as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "trace")
            native = start_session(library, path, options, _PROVIDERS)
            session = OnnxRuntimeSession(library, native, self.name, settings)
            for _ in range(WARM_UP_RUNS + runs):
                session.run(inputs)
            return read_trace(Path(native.end_profiling()), WARM_UP_RUNS)

    def _library(self) -> ModuleType:
        return import_onnxruntime(self.name, self.extra)
