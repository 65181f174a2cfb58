"""ONNX Runtime on the processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np

from deploy.errors import DataError, ModelFileError, RuntimeMissingError
from deploy.runtimes.base import (
    WARM_UP_RUNS,
    LayerTime,
    Runtime,
    RuntimeInfo,
    Session,
    SessionSettings,
    check_feed,
    first_line,
)
from deploy.tensors import Array, TensorInfo

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
_PROVIDERS = ("CPUExecutionProvider",)
_SILENT = 4


class OnnxRuntimeCpu(Runtime):
    """Runs `.onnx` files with ONNX Runtime's own processor kernels."""

    name = "onnxruntime"
    extra = "server"

    def version(self) -> str:
        """Returns ONNX Runtime's version."""
        return str(self._library().__version__)

    def load(self, path: Path, settings: SessionSettings) -> Session:
        """Returns the model in `path`, every graph optimisation on, operators one after the other."""
        library = self._library()
        session = _start(library, path, _options(library, settings))
        return _OnnxRuntimeSession(session, settings, str(library.__version__))

    def write_edges(self, path: Path, to: Path, batch: int) -> bool:
        """Writes the changes of layout that ONNX Runtime adds, as it tells in the model that it optimised."""
        from deploy.runtimes.onnxruntime_edges import write_edge_model

        library = self._library()
        options = _options(library, SessionSettings())
        with TemporaryDirectory() as folder:
            optimised = Path(folder) / "optimised.onnx"
            options.optimized_model_filepath = str(optimised)
            _start(library, path, options)
            return write_edge_model(optimised, to, batch)

    def profile(
        self, path: Path, settings: SessionSettings, inputs: Sequence[Array], runs: int
    ) -> tuple[LayerTime, ...] | None:
        """Returns what each operator takes, from the trace that ONNX Runtime writes of a session."""
        from deploy.runtimes.onnxruntime_profile import read_trace

        library = self._library()
        options = _options(library, settings)
        with TemporaryDirectory() as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "trace")
            native = _start(library, path, options)
            session = _OnnxRuntimeSession(native, settings, str(library.__version__))
            for _ in range(WARM_UP_RUNS + runs):
                session.run(inputs)
            return read_trace(Path(native.end_profiling()), WARM_UP_RUNS)

    def _library(self) -> ModuleType:
        try:
            import onnxruntime
        except ImportError as exc:
            msg = f"runtime '{self.name}' is not installed on this machine: pip install 'shoal[{self.extra}]'"
            raise RuntimeMissingError(msg) from exc
        onnxruntime.set_default_logger_severity(_SILENT)
        return onnxruntime  # type: ignore[no-any-return]


class _OnnxRuntimeSession(Session):
    """A loaded `.onnx` file."""

    def __init__(self, session: Any, settings: SessionSettings, version: str) -> None:
        self._session = session
        self._info = RuntimeInfo(OnnxRuntimeCpu.name, version, tuple(session.get_providers()), settings.threads)
        self._inputs = tuple(_describe(value) for value in session.get_inputs())
        self._outputs = tuple(_describe(value) for value in session.get_outputs())
        self._names = [value.name for value in self._outputs]

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._outputs

    @property
    def fixed_batch(self) -> int | None:
        sizes = [value.shape[0] for value in self._session.get_inputs() if value.shape]
        return next((size for size in sizes if isinstance(size, int)), None)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        feed = self._feed(inputs)
        try:
            return list(self._session.run(self._names, feed))
        except Exception as exc:
            shapes = ", ".join(f"{name} {value.shape} {value.dtype}" for name, value in feed.items())
            msg = f"ONNX Runtime failed on inputs {shapes}: {first_line(exc)}"
            raise DataError(msg) from exc

    def bind(self, inputs: Sequence[Array]) -> Callable[[], object]:
        feed = {name: np.ascontiguousarray(value) for name, value in self._feed(inputs).items()}
        run, names = self._session.run, self._names
        return lambda: run(names, feed)

    def describe(self) -> RuntimeInfo:
        return self._info

    def _feed(self, inputs: Sequence[Array]) -> dict[str, Array]:
        check_feed(self._inputs, inputs)
        return {spec.name: value for spec, value in zip(self._inputs, inputs, strict=True)}


def _start(library: ModuleType, path: Path, options: Any) -> Any:
    if not path.is_file():
        msg = f"no model file at '{path}'"
        raise ModelFileError(msg)
    try:
        return library.InferenceSession(str(path), options, providers=list(_PROVIDERS))
    except Exception as exc:
        msg = f"ONNX Runtime cannot load '{path.name}': {first_line(exc)}"
        raise ModelFileError(msg) from exc


def _options(library: ModuleType, settings: SessionSettings) -> Any:
    options = library.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.spinning)))
    options.add_session_config_entry("session.inter_op.allow_spinning", str(int(settings.spinning)))
    return options


def _describe(value: Any) -> TensorInfo:
    if value.type not in _DTYPES:
        msg = f"'{value.name}' has the element type {value.type}; wanted one of {', '.join(sorted(_DTYPES))}"
        raise ModelFileError(msg)
    shape = tuple(size if isinstance(size, int) else None for size in value.shape[1:])
    return TensorInfo(value.name, shape, _DTYPES[value.type])
