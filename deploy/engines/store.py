"""Engines that were built before, by everything that they depend on."""

from __future__ import annotations

import hashlib
from dataclasses import astuple
from pathlib import Path

from deploy.artifact import hash_model
from deploy.devices import parse_device
from deploy.engines.metadata import EngineMetadata, read_engine
from deploy.engines.place import private_folder
from deploy.engines.process import build
from deploy.engines.settings import BuildSettings
from deploy.errors import EngineMisfitError
from deploy.gpu import Gpu, find_gpu


def find_or_build(onnx: Path, folder: Path, settings: BuildSettings, tensorrt: str) -> tuple[bytes, EngineMetadata]:
    """Returns an engine for a file, built now if there is none in the folder.

    Args:
        onnx: The file.
        folder: See `deploy.engines.place.engine_folder`.
        settings: How it is built.
        tensorrt: The version of TensorRT here.

    Raises:
        DeployError: As `deploy.engines.process.build` says.
    """
    gpu = find_gpu(parse_device(settings.device).index)
    path = kept_path(onnx, private_folder(folder), settings, gpu, tensorrt)
    if path.exists():
        try:
            return read_engine(path, folder)
        except EngineMisfitError:
            # Half of a build that was interrupted, or of another version: it is made anew, in the same place.
            path.unlink(missing_ok=True)
    build(onnx, path, settings)
    return read_engine(path, folder)


def kept_path(onnx: Path, folder: Path, settings: BuildSettings, gpu: Gpu, tensorrt: str) -> Path:
    """Returns where the engine of a file is kept, if it was built."""
    return folder / f"{engine_key(hash_model(onnx)[0], gpu, settings, tensorrt)}.engine"


def engine_key(onnx_sha256: str, gpu: Gpu, settings: BuildSettings, tensorrt: str) -> str:
    """Returns a name that two engines share only if one can stand for the other."""
    parts = (onnx_sha256, gpu.fingerprint, tensorrt, astuple(settings.batches), settings.workspace_bytes)
    return hashlib.sha256(repr((*parts, settings.optimization_level)).encode()).hexdigest()[:32]
