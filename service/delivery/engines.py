"""The engine that a job was timed with, delivered beside the model that it was built of.

It is worth something where it was built alone: an engine holds for one version of TensorRT and one kind of GPU, and its
metadata are sealed for the machine and user that built it (`deploy.engines.metadata`). The ONNX file is what lasts.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from deploy.devices import parse_device
from deploy.engines.library import import_tensorrt
from deploy.engines.metadata import metadata_path, read_engine
from deploy.engines.place import engine_folder
from deploy.engines.settings import BuildSettings, choose_batches
from deploy.engines.store import kept_path
from deploy.errors import DeployError
from deploy.gpu import find_gpu
from service.delivery.manifest import ENGINE, EngineEntry
from service.spec import JobSpec

_RUNTIME: Final = "tensorrt"


def deliver_engine(model: Path, spec: JobSpec) -> tuple[EngineEntry, ...]:
    """Copies the engine that a job timed a model with, and its metadata, beside the model.

    Never run on a GPU yet, but for `copy_engine`.

    Args:
        model: The delivered ONNX file.
        spec: Of the job.

    Returns:
        What the manifest says of it; nothing where the job was not timed in TensorRT on this machine, or the engine is
        not kept any more.
    """
    target = spec.target
    if target.runtime != _RUNTIME or target.agent is not None:
        return ()
    settings = BuildSettings(device=target.local_device, batches=choose_batches(spec.budget.batch))
    try:
        gpu, folder = find_gpu(parse_device(target.local_device).index), engine_folder()
        kept = kept_path(model, folder, settings, gpu, str(import_tensorrt().__version__))
        return (copy_engine(kept, folder, model.parent),)
    except DeployError:
        return ()


def copy_engine(kept: Path, folder: Path, to: Path) -> EngineEntry:
    """Copies an engine and its sealed metadata.

    Args:
        kept: The engine's file.
        folder: Where the key to its seal is.
        to: The folder to write to.

    Returns:
        What the manifest says of it.

    Raises:
        EngineMisfitError: It is not there, was changed, or was not built by Shoal here.
    """
    content, metadata = read_engine(kept, folder)
    (to / ENGINE).write_bytes(content)
    shutil.copyfile(metadata_path(kept), metadata_path(to / ENGINE))
    return EngineEntry(
        filename=ENGINE,
        onnx_sha256=metadata.onnx_sha256,
        runtime=f"{_RUNTIME} {metadata.tensorrt}",
        metadata=metadata.as_dict(),
    )
