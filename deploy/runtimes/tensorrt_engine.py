"""TensorRT itself: engines built from ONNX files on the device that runs them (TensorRT 10.3 to 11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np

from deploy.devices import parse_device
from deploy.engines.library import import_tensorrt, make_log, make_profiler
from deploy.engines.metadata import EngineMetadata, check_engine, read_engine
from deploy.engines.place import engine_folder
from deploy.engines.settings import BuildSettings, choose_batches
from deploy.engines.store import copy_kept, find_or_build
from deploy.errors import DataError, DeviceMemoryError, EngineMisfitError, ModelFileError
from deploy.gpu import find_gpu
from deploy.runtimes.base import WARM_UP_RUNS, LayerTime, Runtime, RuntimeInfo, Session, SessionSettings, check_feed
from deploy.runtimes.cuda import Buffer, Cuda
from deploy.runtimes.tensorrt_layers import FileNode, name_times, parser_names, read_layers
from deploy.tensors import Array, TensorInfo

_ENGINE = ".engine"
_DTYPES = ("float32", "float16", "int64", "int32", "int8", "uint8", "bool")


@final
class TensorRtEngine(Runtime):
    """Runs `.onnx` files as TensorRT engines, built when they are first loaded, and `.engine` files built here."""

    name = "tensorrt"
    extra = "tensorrt"
    devices = ("cuda",)
    load_seconds = 1800.0

    def version(self) -> str:
        """Returns TensorRT's version, like `10.3.0`."""
        return str(import_tensorrt().__version__)

    def load(self, path: Path, settings: SessionSettings) -> Session:
        """Returns the model in `path`, as an engine whose kernels are chosen for the settings' batch.

        Raises:
            EngineMisfitError: If `path` is an engine that was not built by Shoal here, or for another device.
            DeployError: As `deploy.engines.process.build` says.
        """
        library = import_tensorrt()
        gpu = find_gpu(parse_device(settings.device).index)
        if not path.is_file():
            msg = f"no model file at '{path}'"
            raise ModelFileError(msg)
        content, metadata = _engine_of(path, settings, str(library.__version__))
        check_engine(metadata, gpu, str(library.__version__))
        return _TensorRtSession(library, content, metadata, settings)

    def profile(
        self, path: Path, settings: SessionSettings, inputs: Sequence[Array], runs: int
    ) -> tuple[LayerTime, ...] | None:
        """Returns what each layer of the engine takes, told at the nodes of the file, by TensorRT's own profiler."""
        session = self.load(path, settings)
        assert isinstance(session, _TensorRtSession)
        seconds = session.timed_layers(inputs, runs)
        return name_times(read_layers(session.information()), seconds, _nodes_of(path))

    def write_engine(self, path: Path, settings: SessionSettings, to: Path) -> bool:
        """Writes the engine that was timed, as it is kept, with its sealed metadata; builds none."""
        version = str(import_tensorrt().__version__)
        copy_kept(path, engine_folder(), _how(settings), version, to)
        return True

    def write_edges(self, path: Path, to: Path, batch: int) -> bool:  # noqa: ARG002
        """Writes nothing: what TensorRT does at the edges of a network cannot be written as ONNX."""
        import_tensorrt()
        return False


def _engine_of(path: Path, settings: SessionSettings, version: str) -> tuple[bytes, EngineMetadata]:
    folder = engine_folder()
    if path.suffix == _ENGINE:
        return read_engine(path, folder)
    return find_or_build(path, folder, _how(settings, folder), version)


def _how(settings: SessionSettings, timing_cache: Path | None = None) -> BuildSettings:
    return BuildSettings(device=settings.device, batches=choose_batches(settings.batch), timing_cache=timing_cache)


def _nodes_of(path: Path) -> dict[str, FileNode]:
    if path.suffix == _ENGINE:
        return {}
    from deploy.modelfile import open_model

    return parser_names((node.name, node.output[0], node.op_type) for node in open_model(path).graph.node)


@final
class _TensorRtSession(Session):
    """A deserialised engine."""

    def __init__(self, library: Any, content: bytes, metadata: EngineMetadata, settings: SessionSettings) -> None:
        self._library, self._metadata = library, metadata
        self._cuda = Cuda(parse_device(settings.device).index)
        self._log, messages = make_log(library)
        self._runtime = library.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            msg = f"TensorRT refuses the engine: {messages[-1] if messages else 'it says no reason'}"
            raise EngineMisfitError(msg)
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        entering = [self._engine.get_tensor_mode(name) == library.TensorIOMode.INPUT for name in names]
        specs = [self._describe(name) for name in names]
        self._inputs = tuple(spec for spec, enters in zip(specs, entering, strict=True) if enters)
        self._outputs = tuple(spec for spec, enters in zip(specs, entering, strict=True) if not enters)
        self._info = RuntimeInfo(
            TensorRtEngine.name, metadata.tensorrt, ("TensorRT",), settings.threads, settings.device
        )
        self._placed: _Placement | None = None

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        return self._outputs

    @property
    def fixed_batch(self) -> int | None:
        batches = self._metadata.batches
        return batches.best if batches.smallest == batches.largest else None

    @property
    def metadata(self) -> EngineMetadata:
        """What is known about the engine."""
        return self._metadata

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        check_feed(self._inputs, inputs)
        pieces = [self._run(piece) for piece in split_batch(inputs, self._metadata.batches.largest)]
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    def bind(self, inputs: Sequence[Array]) -> Callable[[], object]:
        check_feed(self._inputs, inputs)
        placement = self._place(inputs)
        placement.upload(inputs)
        return placement.execute

    def timed_layers(self, inputs: Sequence[Array], runs: int) -> dict[str, list[float]]:
        """Returns what each layer took in each run that counts, in seconds, by TensorRT's name for it."""
        check_feed(self._inputs, inputs)
        placement = self._place(inputs)
        placement.upload(inputs)
        return placement.profile(make_profiler(self._library), runs)

    def information(self) -> str:
        """Returns what TensorRT tells of the engine's layers, as JSON."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._library.LayerInformationFormat.JSON))

    def describe(self) -> RuntimeInfo:
        return self._info

    def _run(self, inputs: Sequence[Array]) -> list[Array]:
        if self._placed is None or not self._placed.fits(inputs):
            self._placed = None  # its memory goes back before more is asked for
            self._placed = self._place(inputs)
        self._placed.upload(inputs)
        self._placed.execute()
        return self._placed.download()

    def _place(self, inputs: Sequence[Array]) -> _Placement:
        self._cuda.activate()
        context = self._engine.create_execution_context()
        if context is None:
            msg = "the GPU has no memory left to run the engine in: free some, or lower the batch"
            raise DeviceMemoryError(msg)
        return _Placement(self._cuda, context, (self._inputs, self._outputs), inputs)

    def _describe(self, name: str) -> TensorInfo:
        dtype = np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name))).name
        if dtype not in _DTYPES:
            msg = f"'{name}' has the element type {dtype}; wanted one of {', '.join(_DTYPES)}"
            raise ModelFileError(msg)
        sizes = tuple(self._engine.get_tensor_shape(name))[1:]
        return TensorInfo(name, tuple(None if size < 0 else int(size) for size in sizes), dtype)


@final
class _Placement:
    """One execution context with its inputs and outputs on the GPU, for inputs of fixed shapes."""

    def __init__(
        self,
        cuda: Cuda,
        context: Any,
        specs: tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]],
        inputs: Sequence[Array],
    ) -> None:
        self._cuda, self._context = cuda, context
        self._inputs, self._outputs = specs
        self._shapes = [value.shape for value in inputs]
        for spec, value in zip(self._inputs, inputs, strict=True):
            if not context.set_input_shape(spec.name, value.shape):
                msg = f"the engine does not take the shape {value.shape} for '{spec.name}'"
                raise DataError(msg)
        self._buffers = {spec.name: self._allocate(spec) for spec in (*self._inputs, *self._outputs)}

    def fits(self, inputs: Sequence[Array]) -> bool:
        """Returns whether this was made for inputs of such shapes."""
        return self._shapes == [value.shape for value in inputs]

    def upload(self, inputs: Sequence[Array]) -> None:
        """Copies the inputs to the GPU."""
        for spec, value in zip(self._inputs, inputs, strict=True):
            self._cuda.upload(self._buffers[spec.name], np.ascontiguousarray(value))

    def execute(self) -> None:
        """Runs once, and returns when the outputs are complete."""
        if not self._context.execute_async_v3(int(self._cuda.stream)):
            msg = f"the engine failed on inputs of shapes {self._shapes}"
            raise DataError(msg)
        self._cuda.synchronize()

    def profile(self, profiler: Any, runs: int) -> dict[str, list[float]]:
        """Runs with a profiler of `make_profiler`; returns what it was told, without the first runs."""
        # A context with a profiler tells it of each layer before `execute_async_v3` returns.
        self._context.profiler = profiler
        for _ in range(WARM_UP_RUNS + runs):
            self.execute()
        return {name: times[WARM_UP_RUNS:] or times for name, times in profiler.seconds.items()}

    def download(self) -> list[Array]:
        """Returns the outputs."""
        return [
            self._cuda.download(self._buffers[spec.name], self._shape(spec.name), spec.dtype) for spec in self._outputs
        ]

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in self._context.get_tensor_shape(name))

    def _allocate(self, spec: TensorInfo) -> Buffer:
        shape = self._shape(spec.name)
        if min(shape, default=0) < 0:
            msg = f"the size of '{spec.name}' depends on the values of the inputs, which engines are not run with here"
            raise ModelFileError(msg)
        buffer = self._cuda.allocate(int(np.prod(shape)) * np.dtype(spec.dtype).itemsize)
        self._context.set_tensor_address(spec.name, buffer.pointer)
        return buffer


def split_batch(inputs: Sequence[Array], largest: int) -> list[list[Array]]:
    """Returns the inputs in pieces of at most `largest` samples: an engine takes no more than it was built for."""
    count = len(inputs[0]) if inputs else 0
    return [[value[start : start + largest] for value in inputs] for start in range(0, max(count, 1), largest)]
