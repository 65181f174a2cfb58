"""ONNX Runtime on NVIDIA GPUs, with its TensorRT provider: TensorRT where it can, CUDA where it cannot."""

from __future__ import annotations

import ctypes
import hashlib
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import final

from deploy.artifact import hash_model
from deploy.devices import parse_device
from deploy.engines.place import engine_folder, private_folder
from deploy.engines.settings import Batches, choose_batches, choose_shapes, choose_workspace
from deploy.engines.versions import decode_version, find_library
from deploy.gpu import Gpu, find_gpu
from deploy.runtimes.base import Runtime, Session, SessionSettings
from deploy.runtimes.cuda import Cuda
from deploy.runtimes.onnxruntime_cuda import check_providers, list_providers, preload_libraries, require_provider
from deploy.runtimes.onnxruntime_failures import classify_build_failure
from deploy.runtimes.onnxruntime_session import OnnxRuntimeSession, import_onnxruntime, make_options, start_session

TENSORRT = "TensorrtExecutionProvider"
_PROVIDER = "libonnxruntime_providers_tensorrt.so"


@final
class OnnxRuntimeTensorRt(Runtime):
    """Runs `.onnx` files with TensorRT inside ONNX Runtime, in the file's own precision."""

    name = "onnxruntime-tensorrt"
    extra = "cuda"
    devices = ("cuda",)
    load_seconds = 1800.0

    def version(self) -> str:
        """Returns ONNX Runtime's version, and behind it TensorRT's where it can be read, `1.23.0+tensorrt.10.13.3`."""
        return _version(self._library())

    def load(self, path: Path, settings: SessionSettings) -> Session:
        """Returns the model in `path`; the first time, TensorRT builds engines for it, which takes minutes."""
        library = self._library()
        require_provider(library, TENSORRT, self.extra)
        gpu = find_gpu(parse_device(settings.device).index)
        preload_libraries(library)
        version = _version(library)
        folder = _folder(path, gpu, version)
        shapes = _describe_inputs(library, path, choose_batches(settings.batch))
        workspace = choose_workspace(Cuda(gpu.index).free_bytes(), gpu.shares_memory)
        options = make_provider_options(gpu.index, folder, workspace, shapes)
        providers = [(TENSORRT, options), *list_providers(settings)]
        explain = partial(classify_build_failure, shares_memory=gpu.shares_memory, workspace_bytes=workspace)
        session = start_session(library, path, make_options(library, settings), providers, explain)
        check_providers(session.get_providers(), TENSORRT, self.extra)
        return OnnxRuntimeSession(library, session, self.name, settings, version)

    def write_edges(self, path: Path, to: Path, batch: int) -> bool:  # noqa: ARG002
        """Writes nothing: what TensorRT does at the edges of a network cannot be written as ONNX."""
        self._library()
        return False

    def _library(self) -> ModuleType:
        return import_onnxruntime(self.name, self.extra)


def _version(library: ModuleType) -> str:
    found = read_tensorrt_version(Path(library.__file__ or "").parent / "capi" / _PROVIDER)
    return str(library.__version__) + (f"+tensorrt.{found}" if found else "")


def read_tensorrt_version(provider: Path) -> str | None:
    """Returns the version of the TensorRT that the provider loads; None where either library is not there.

    Args:
        provider: The provider's own library.
    """
    try:
        name = find_library(provider.read_bytes())
        return None if name is None else decode_version(ctypes.CDLL(name).getInferLibVersion())
    except (OSError, AttributeError):
        return None


Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""Smallest, best and largest shape by input, of those that are open."""


def make_provider_options(index: int, folder: Path, workspace: int, shapes: Shapes) -> dict[str, str]:
    """Returns the provider's options.

    No precision is switched on: the provider then builds strongly typed networks on TensorRT 10 and later, so that the
    precisions are those of the file.

    Args:
        index: N of `cuda:N`.
        folder: Where engines and timing caches of this very file go; nobody else may write there.
        workspace: Scratch memory of a kernel, in bytes.
        shapes: Of the inputs.
    """
    options = {
        "device_id": str(index),
        "trt_max_workspace_size": str(workspace),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder.parent),
    }
    if shapes:
        kinds = zip(("min", "opt", "max"), range(3), strict=True)
        options |= {f"trt_profile_{kind}_shapes": _write_shapes(shapes, place) for kind, place in kinds}
    return options


def _write_shapes(shapes: Shapes, place: int) -> str:
    """Returns shapes as the provider wants them, `image:1x3x224x224,mask:1x7`."""
    return ",".join(f"{name}:{'x'.join(map(str, each[place]))}" for name, each in shapes.items())


def _describe_inputs(library: ModuleType, path: Path, batches: Batches) -> Shapes:
    # Read by the processor's provider, which does not build anything.
    options = make_options(library, SessionSettings())
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = start_session(library, path, options, ["CPUExecutionProvider"])
    found: Shapes = {}
    for value in session.get_inputs():
        sizes = [size if isinstance(size, int) else -1 for size in value.shape]
        shapes = choose_shapes(value.name, sizes, batches)
        if shapes is not None:
            found[value.name] = shapes
    return found


def _folder(path: Path, gpu: Gpu, version: str) -> Path:
    """Returns a folder for the engines of this file alone: the provider does not notice that a file has changed."""
    device = hashlib.sha256(f"{gpu.fingerprint}|{version}".encode()).hexdigest()[:16]
    above = private_folder(engine_folder() / f"onnxruntime-{device}")
    return private_folder(above / hash_model(path)[0][:32])
