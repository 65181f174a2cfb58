"""Engines that were built before, by everything that they depend on."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import astuple
from pathlib import Path

from deploy.artifact import hash_model
from deploy.devices import parse_device
from deploy.engines.metadata import EngineMetadata, metadata_path, read_engine
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


def copy_kept(onnx: Path, folder: Path, settings: BuildSettings, tensorrt: str, to: Path) -> None:
    """Copies the engine that was built of a file before, and its sealed metadata; builds none.

    Args:
        onnx: The file.
        folder: See `deploy.engines.place.engine_folder`.
        settings: How it was built.
        tensorrt: The version of TensorRT here.
        to: Where the engine goes; the metadata goes beside it.

    Raises:
        EngineMisfitError: It is not kept any more, or was changed.
        DeviceMissingError: If the device is not there.
    """
    gpu = find_gpu(parse_device(settings.device).index)
    kept = kept_path(onnx, private_folder(folder), settings, gpu, tensorrt)
    if not kept.exists():
        msg = f"no engine of '{onnx.name}' for '{gpu.name}' and TensorRT {tensorrt} is kept here any more"
        raise EngineMisfitError(msg)
    copy_engine(kept, folder, to)


def copy_engine(kept: Path, folder: Path, to: Path) -> None:
    """Copies an engine and its sealed metadata.

    Args:
        kept: The engine's file.
        folder: Where the key to its seal is.
        to: Where the engine goes; the metadata goes beside it.

    Raises:
        EngineMisfitError: It is not there, was changed, or was not built by Shoal here.
    """
    content, _ = read_engine(kept, folder)
    to.write_bytes(content)
    shutil.copyfile(metadata_path(kept), metadata_path(to))


def kept_path(onnx: Path, folder: Path, settings: BuildSettings, gpu: Gpu, tensorrt: str) -> Path:
    """Returns where the engine of a file is kept, if it was built."""
    return folder / f"{engine_key(hash_model(onnx)[0], gpu, settings, tensorrt)}.engine"


def engine_key(onnx_sha256: str, gpu: Gpu, settings: BuildSettings, tensorrt: str) -> str:
    """Returns a name that two engines share only if one can stand for the other."""
    parts = (onnx_sha256, gpu.fingerprint, tensorrt, astuple(settings.batches), settings.workspace_bytes)
    return hashlib.sha256(repr((*parts, settings.optimization_level)).encode()).hexdigest()[:32]
