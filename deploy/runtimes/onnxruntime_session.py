"""What the runtimes of ONNX Runtime have in common, whatever executes the operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, final

import numpy as np

from deploy.devices import DeviceName, parse_device
from deploy.errors import DataError, DeployError, ModelFileError, RuntimeMissingError
from deploy.runtimes.base import RuntimeInfo, Session, SessionSettings, check_feed, first_line
from deploy.runtimes.onnxruntime_failures import classify_device_failure
from deploy.tensors import Array, TensorInfo

Provider = str | tuple[str, dict[str, str]]
"""A provider's name, alone or with its options."""

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
_SILENT = 4


def import_onnxruntime(name: str, extra: str) -> ModuleType:
    """Returns the library, made silent.

    Args:
        name: Registry name of the runtime that wants it.
        extra: The extra that installs it.

    Raises:
        RuntimeMissingError: If it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as exc:
        msg = f"runtime '{name}' is not installed on this machine: pip install 'shoal[{extra}]'"
        raise RuntimeMissingError(msg) from exc
    onnxruntime.set_default_logger_severity(_SILENT)
    return onnxruntime  # type: ignore[no-any-return]


def make_options(library: ModuleType, settings: SessionSettings) -> Any:
    """Returns session options: every graph optimisation on, operators one after the other."""
    options = library.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.spinning)))
    options.add_session_config_entry("session.inter_op.allow_spinning", str(int(settings.spinning)))
    return options


Explain = Callable[[str, str], DeployError | None]
"""Takes what was said and what was being done; returns the error that it means, None where it is the file's fault."""


def start_session(
    library: ModuleType, path: Path, options: Any, providers: Sequence[Provider], explain: Explain | None = None
) -> Any:
    """Returns the session; never one with fewer providers than asked for.

    Args:
        library: ONNX Runtime.
        path: The file.
        options: Of `make_options`.
        providers: What executes the operators, in order of preference.
        explain: Tells failures of the device from those of the file; None where there is no device but the processor.

    Raises:
        ModelFileError: If the file is missing, damaged or uses something that ONNX Runtime does not know.
        DeployError: What `explain` says.
    """
    if not path.is_file():
        msg = f"no model file at '{path}'"
        raise ModelFileError(msg)
    try:
        # Without the fallback: it would print, and go on with the processor when a device fails.
        return library.InferenceSession(str(path), options, providers=list(providers), enable_fallback=0)
    except Exception as exc:
        failure = explain(str(exc), f"loading '{path.name}'") if explain is not None else None
        msg = f"ONNX Runtime cannot load '{path.name}': {first_line(exc)}"
        raise failure or ModelFileError(msg) from exc


@final
class OnnxRuntimeSession(Session):
    """A loaded `.onnx` file."""

    def __init__(
        self, library: ModuleType, session: Any, name: str, settings: SessionSettings, version: str | None = None
    ) -> None:
        """Describes the file.

        Args:
            library: ONNX Runtime.
            session: Its session.
            name: Registry name of the runtime.
            settings: How the file was loaded.
            version: The runtime's, ONNX Runtime's by default.

        Raises:
            ModelFileError: If it has inputs or outputs of an element type that numpy has not.
        """
        self._library, self._session = library, session
        self._device = parse_device(settings.device)
        providers = tuple(session.get_providers())
        version = version or str(library.__version__)
        self._info = RuntimeInfo(name, version, providers, settings.threads, settings.device)
        self._inputs = tuple(_describe(value) for value in session.get_inputs())
        self._outputs = tuple(_describe(value) for value in session.get_outputs())
        self._names = [value.name for value in self._outputs]

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What the model takes, in order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What the model returns, in order."""
        return self._outputs

    @property
    def fixed_batch(self) -> int | None:
        """The one batch size that the file allows, None where it is free."""
        sizes = [value.shape[0] for value in self._session.get_inputs() if value.shape]
        return next((size for size in sizes if isinstance(size, int)), None)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Returns the outputs for one batch."""
        feed = self._feed(inputs)
        try:
            return list(self._session.run(self._names, feed))
        except Exception as exc:
            raise _run_failure(exc, feed, self._device) from exc

    def bind(self, inputs: Sequence[Array]) -> Callable[[], object]:
        """Returns a function that runs the model once on these inputs, and nothing else."""
        feed = {name: np.ascontiguousarray(value) for name, value in self._feed(inputs).items()}
        if self._device.kind != "cpu":
            return bind_on_device(self._library, self._session, feed, self._device)
        run, names = self._session.run, self._names
        return lambda: run(names, feed)

    def describe(self) -> RuntimeInfo:
        """Returns what runs this model."""
        return self._info

    def _feed(self, inputs: Sequence[Array]) -> dict[str, Array]:
        check_feed(self._inputs, inputs)
        return {spec.name: value for spec, value in zip(self._inputs, inputs, strict=True)}


def bind_on_device(
    library: ModuleType, session: Any, feed: dict[str, Array], device: DeviceName
) -> Callable[[], list[Any]]:
    """Returns a function that runs once on inputs that lie on the device, and returns when the outputs are complete.

    Inputs are copied there now and outputs stay there, so that a run has no copy in it: it is the network that is
    timed, and not the bus.

    Args:
        library: ONNX Runtime.
        session: Its session.
        feed: Inputs by name, contiguous.
        device: Where the session runs.

    Returns:
        The function; it returns the outputs as `OrtValue`s.

    Raises:
        DeviceMemoryError: The device has no memory for the inputs; so may the function.
        DataError: The inputs cannot be bound; so may the function.
    """
    try:
        binding = _place(library, session, feed, device)
    except Exception as exc:
        raise _run_failure(exc, feed, device) from exc

    def run() -> list[Any]:
        try:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        except Exception as exc:
            raise _run_failure(exc, feed, device) from exc
        return list(binding.get_outputs())

    return run


def _place(library: ModuleType, session: Any, feed: dict[str, Array], device: DeviceName) -> Any:
    binding = session.io_binding()
    for name, value in feed.items():
        placed = library.OrtValue.ortvalue_from_numpy(value, device.kind, device.index)
        binding.bind_ortvalue_input(name, placed)
    for value in session.get_outputs():
        binding.bind_output(value.name, device.kind, device.index)
    binding.synchronize_inputs()
    return binding


def _run_failure(exc: Exception, feed: dict[str, Array], device: DeviceName) -> DeployError:
    """Returns the error that a failed run means: a device's where it tells of one, else that of the inputs."""
    shapes = ", ".join(f"{name} {value.shape} {value.dtype}" for name, value in feed.items())
    failure = None if device.kind == "cpu" else classify_device_failure(str(exc), f"running inputs {shapes}")
    return failure or DataError(f"ONNX Runtime failed on inputs {shapes}: {first_line(exc)}")


def _describe(value: Any) -> TensorInfo:
    if value.type not in _DTYPES:
        msg = f"'{value.name}' has the element type {value.type}; wanted one of {', '.join(sorted(_DTYPES))}"
        raise ModelFileError(msg)
    shape = tuple(size if isinstance(size, int) else None for size in value.shape[1:])
    return TensorInfo(value.name, shape, _DTYPES[value.type])
