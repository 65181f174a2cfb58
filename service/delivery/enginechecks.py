"""Whether delivered engines belong to the delivered model, and run here; they are never loaded."""

from __future__ import annotations

from deploy.devices import parse_device
from deploy.engines.library import import_tensorrt
from deploy.engines.metadata import EngineMetadata, check_engine, parse_metadata
from deploy.errors import EngineMisfitError
from deploy.gpu import Gpu, find_gpu
from service.delivery.checks import ABSENT, Check, failed, ok, skipped
from service.delivery.manifest import ENGINE, EngineEntry, Manifest


def check_engines(manifest: Manifest) -> list[Check]:
    """Returns what is right and wrong about the engines of a folder whose files are those of its manifest."""
    checks = [_check(entry, manifest) for entry in manifest.engines]
    if manifest.engine_missing is not None:
        checks.append(skipped("engine", ENGINE, f"was not delivered: {manifest.engine_missing}"))
    return checks


def _check(entry: EngineEntry, manifest: Manifest) -> Check:
    name = entry.filename
    try:
        metadata = parse_metadata(entry.metadata)
    except EngineMisfitError as exc:
        return failed("engine", name, str(exc))
    facts = (
        ("was built of another model", entry.onnx_sha256, manifest.model.sha256),
        ("has metadata of an engine of another model", metadata.onnx_sha256, manifest.model.sha256),
        ("has metadata of another engine", metadata.engine_sha256, manifest.digests[name].sha256),
    )
    for what, got, wanted in facts:
        if got != wanted:
            return failed("engine", name, what, got, wanted)
    try:
        gpu = find_gpu(parse_device(manifest.device.local_name).index)
        return check_fit(name, metadata, gpu, str(import_tensorrt().__version__))
    except ABSENT as exc:
        return skipped("engine", name, f"belongs to the model; whether it runs was not looked at: {exc}")


def check_fit(name: str, metadata: EngineMetadata, gpu: Gpu, tensorrt: str) -> Check:
    """Returns whether an engine runs on a GPU with a version of TensorRT; if not, it is no fault of the folder."""
    try:
        check_engine(metadata, gpu, tensorrt)
    except EngineMisfitError as exc:
        return skipped("engine", name, f"belongs to the model, and is refused here: {exc}")
    return ok("engine", name, f"belongs to the model, and fits {gpu.name} with TensorRT {tensorrt}")
