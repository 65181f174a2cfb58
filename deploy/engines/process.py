"""Builds an engine in a fresh process: a builder that crashes, hangs or is killed for memory takes nobody along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy.artifact import hash_model
from deploy.engines.failures import classify_death
from deploy.engines.metadata import EngineMetadata, write_metadata
from deploy.engines.place import engine_folder, private_folder, write_atomically
from deploy.engines.settings import Batches, BuildSettings
from deploy.errors import TOLD, EngineBuildError, EngineCancelledError, EngineOperatorError

# -P: a file called json.py in the working folder must not be imported in place of the real one.
COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "deploy.engines.worker")
_ROOT = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.1
_SAID_BYTES = 1 << 16


def build(onnx: Path, out: Path, settings: BuildSettings, cancel: threading.Event | None = None) -> EngineMetadata:
    """Builds a TensorRT engine from an ONNX file, on the device that is to run it, and writes it with its metadata.

    Args:
        onnx: The file; its precisions are kept (strongly typed).
        out: Where the engine goes; the metadata goes beside it.
        settings: How.
        cancel: Set it from another thread to stop; the builder is killed within a fraction of a second.

    Returns:
        What is known about the engine.

    Raises:
        RuntimeMissingError: If TensorRT is not installed, or is of a version that Shoal does not drive.
        DeviceMissingError: If the device is not there.
        DeviceMemoryError: If the device has too little memory, also where TensorRT says something else.
        EngineOperatorError: If TensorRT does not know an operator.
        ModelFileError: If the file is missing, damaged, or leaves more than the batch open.
        EngineBuildError: If the builder fails in another way, dies, or takes longer than it may.
        EngineCancelledError: If `cancel` was set.
    """
    sha256 = hash_model(onnx)[0]
    folder = private_folder(out.parent)
    with TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        answer = _ask(place, _request(onnx, place, settings), settings.timeout_seconds, cancel)
        metadata = EngineMetadata(
            **{**answer, "batches": Batches(**answer["batches"])},
            onnx_sha256=sha256,
        )
        write_metadata(out, metadata, engine_folder())
        write_atomically(out, (place / "engine").read_bytes())
    return metadata


def _request(onnx: Path, place: Path, settings: BuildSettings) -> dict[str, Any]:
    cache = settings.timing_cache
    values = {**asdict(settings), "timing_cache": None if cache is None else str(private_folder(cache))}
    return {"onnx": str(onnx.resolve()), "engine": str(place / "engine"), "settings": values}


def _ask(place: Path, request: dict[str, Any], patience: float, cancel: threading.Event | None) -> dict[str, Any]:
    (place / "request").write_text(json.dumps(request), encoding="utf-8")
    with (place / "said").open("wb") as said:
        process = subprocess.Popen(  # noqa: S603  our own module, started with our own interpreter
            (*COMMAND, str(place)), stdin=subprocess.PIPE, stdout=said, stderr=said, env=_environment()
        )
        try:
            _wait(process, patience, cancel)
        finally:
            _stop(process)
    return _decode(place, process.returncode)


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def _wait(process: subprocess.Popen[bytes], patience: float, cancel: threading.Event | None) -> None:
    deadline = time.monotonic() + patience
    while process.poll() is None:
        if cancel is not None and cancel.is_set():
            msg = "building the engine was cancelled"
            raise EngineCancelledError(msg)
        if time.monotonic() > deadline:
            msg = f"the engine builder was not done after {patience:.0f} s and was killed: allow more time"
            raise EngineBuildError(msg)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _decode(place: Path, status: int) -> dict[str, Any]:
    try:
        answer = json.loads((place / "answer").read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        said = (place / "said").read_bytes()[-_SAID_BYTES:].decode(errors="replace")
        raise classify_death(status, said) from exc
    error = answer.get("error")
    if error is None:
        metadata: dict[str, Any] = answer["metadata"]
        return metadata
    if error["kind"] == EngineOperatorError.__name__:
        raise EngineOperatorError(error["message"], error["operator"], error["node"])
    raise TOLD.get(error["kind"], EngineBuildError)(error["message"])
