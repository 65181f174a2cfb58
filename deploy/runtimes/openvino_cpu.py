"""OpenVINO on the processor."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from deploy.artifact import hash_model
from deploy.engines.metadata import metadata_path
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
    layer_times,
)
from deploy.tensors import Array, TensorInfo

_DEVICE = "CPU"
_SPLIT = "/WithoutBiases"
"""What OpenVINO appends to a convolution whose bias it handles apart."""
_HALF = {"f16": "FP16", "bf16": "BF16"}
"""Half-precision formats, and what OpenVINO calls the processor's ability to compute in them."""

_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "f64": "float64",
    "i64": "int64",
    "i32": "int32",
    "i8": "int8",
    "u8": "uint8",
    "boolean": "bool",
}


class OpenVinoCpu(Runtime):
    """Runs `.onnx` files with OpenVINO's processor kernels, one request at a time, in the file's own precision."""

    name = "openvino"
    extra = "openvino"
    devices = ("cpu",)

    def version(self) -> str:
        """Returns OpenVINO's release, like `2026.4.1`."""
        return str(self._library().get_version()).partition("-")[0]

    def load(self, path: Path, settings: SessionSettings) -> Session:
        """Returns the model in `path`, compiled for any batch size; `bind` compiles it anew for the one it gets."""
        library = self._library()
        if not path.is_file():
            msg = f"no model file at '{path}'"
            raise ModelFileError(msg)
        core = library.Core()
        try:
            model = core.read_model(str(path))
            return _OpenVinoSession(core, model, settings, self.version())
        except ModelFileError:
            raise
        except Exception as exc:
            msg = f"OpenVINO cannot load '{path.name}': {first_line(exc)}"
            raise ModelFileError(msg) from exc

    def write_edges(self, path: Path, to: Path, batch: int) -> bool:  # noqa: ARG002
        """Writes nothing: what OpenVINO does at the edges of a model cannot be written as ONNX."""
        self._library()
        return False

    def write_engine(self, path: Path, settings: SessionSettings, to: Path) -> bool:
        """Writes the compiled model, which this version of OpenVINO imports on such a processor."""
        session = self.load(path, settings)
        assert isinstance(session, _OpenVinoSession)
        content = session.exported()
        known = {"openvino": self.version(), "onnx_sha256": hash_model(path)[0]}
        to.write_bytes(content)
        stated = {"engine": {**known, "engine_sha256": hashlib.sha256(content).hexdigest()}}
        metadata_path(to).write_text(json.dumps(stated))
        return True

    def profile(
        self, path: Path, settings: SessionSettings, inputs: Sequence[Array], runs: int
    ) -> tuple[LayerTime, ...] | None:
        """Returns what each operator takes, from the performance counters of a request; what was fused takes none."""
        session = self.load(path, settings)
        assert isinstance(session, _OpenVinoSession)
        run, counters = session.counted(inputs)
        seconds: dict[tuple[str, str], list[float]] = {}
        for number in range(WARM_UP_RUNS + runs):
            run()
            if number >= WARM_UP_RUNS:
                for name, op, taken in counters():
                    seconds.setdefault((name, op), []).append(taken)
        return layer_times(seconds)

    def _library(self) -> ModuleType:
        try:
            import openvino
        except ImportError as exc:
            msg = f"runtime '{self.name}' is not installed on this machine: pip install 'shoal[{self.extra}]'"
            raise RuntimeMissingError(msg) from exc
        return openvino  # type: ignore[no-any-return]


class _OpenVinoSession(Session):
    """A loaded `.onnx` file."""

    def __init__(self, core: Any, model: Any, settings: SessionSettings, version: str) -> None:
        self._core, self._model = core, model
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(settings.threads),
            # Otherwise bfloat16 is used where the processor has it, whatever the file says.
            "INFERENCE_PRECISION_HINT": _hint(core, model),
        }
        self._info = RuntimeInfo(OpenVinoCpu.name, version, (_DEVICE,), settings.threads)
        self._inputs = tuple(_describe(port) for port in model.inputs)
        self._outputs = tuple(_describe(port) for port in model.outputs)
        self._compiled = core.compile_model(model, _DEVICE, self._config)

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._outputs

    @property
    def fixed_batch(self) -> int | None:
        sizes = [port.partial_shape[0] for port in self._model.inputs if len(port.partial_shape)]
        return next((size.get_length() for size in sizes if size.is_static), None)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        check_feed(self._inputs, inputs)
        request = self._compiled.create_infer_request()
        return self._infer(request, [np.ascontiguousarray(value) for value in inputs])

    def bind(self, inputs: Sequence[Array]) -> Callable[[], object]:
        request, fixed = self._fixed(inputs, {})
        return lambda: self._infer(request, fixed)

    def counted(
        self, inputs: Sequence[Array]
    ) -> tuple[Callable[[], object], Callable[[], list[tuple[str, str, float]]]]:
        """Returns the function of `bind`, and one that returns name, type and seconds of its last run's operators."""
        request, fixed = self._fixed(inputs, {"PERF_COUNT": "YES"})

        def counters() -> list[tuple[str, str, float]]:
            return [
                (entry.node_name.removesuffix(_SPLIT), entry.node_type, entry.real_time.total_seconds())
                for entry in request.get_profiling_info()
                if entry.real_time
            ]

        return lambda: self._infer(request, fixed), counters

    def _fixed(self, inputs: Sequence[Array], extra: dict[str, str]) -> tuple[Any, list[Array]]:
        """Returns a request of the model compiled for the shapes of these inputs, and the inputs as it takes them."""
        check_feed(self._inputs, inputs)
        model = self._model.clone()
        shapes = {index: list(value.shape) for index, value in enumerate(inputs)}
        try:
            model.reshape(shapes)
            request = self._core.compile_model(model, _DEVICE, {**self._config, **extra}).create_infer_request()
        except Exception as exc:
            msg = f"OpenVINO cannot fix the shapes {list(shapes.values())}: {first_line(exc)}"
            raise DataError(msg) from exc
        return request, [np.ascontiguousarray(value) for value in inputs]

    def describe(self) -> RuntimeInfo:
        return self._info

    def exported(self) -> bytes:
        """Returns the compiled model as OpenVINO imports it again."""
        stream = io.BytesIO()
        self._compiled.export_model(stream)
        return stream.getvalue()

    def _infer(self, request: Any, inputs: list[Array]) -> list[Array]:
        try:
            found = request.infer(dict(enumerate(inputs)), share_inputs=True)
        except Exception as exc:
            shapes = ", ".join(f"{value.shape} {value.dtype}" for value in inputs)
            msg = f"OpenVINO failed on inputs {shapes}: {first_line(exc)}"
            raise DataError(msg) from exc
        return [found[index] for index in range(len(self._outputs))]


def _hint(core: Any, model: Any) -> str:
    """Returns what to compute in: a file's own half-precision format where the processor has it, else float32."""
    formats = {constant.get_element_type().get_type_name() for constant in _constants(model)}
    able = core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    return next((hint for hint, name in _HALF.items() if hint in formats and name in able), "f32")


def _constants(model: Any) -> list[Any]:
    return [operator for operator in model.get_ops() if operator.get_type_name() == "Constant"]


def _describe(port: Any) -> TensorInfo:
    kind = port.element_type.get_type_name()
    name = port.any_name
    if kind not in _DTYPES:
        msg = f"'{name}' has the element type {kind}; wanted one of {', '.join(sorted(_DTYPES))}"
        raise ModelFileError(msg)
    sizes = list(port.partial_shape)[1:]
    return TensorInfo(name, tuple(size.get_length() if size.is_static else None for size in sizes), _DTYPES[kind])
