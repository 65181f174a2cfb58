"""The engine that a job was timed with, delivered beside the model that it was built of.

It comes from the job's device: this machine, or one that an agent speaks for. To everybody else it is data that anybody
may have sent: checked against its hash, its model and its size, and never loaded here.

It is worth something where it was built alone: an engine holds for one version of TensorRT and one kind of GPU, and its
metadata are sealed for the machine and user that built it (`deploy.engines.metadata`). The ONNX file is what lasts.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from deploy.artifact import hash_model
from deploy.bench import Bench
from deploy.digest import file_digest
from deploy.engines.metadata import metadata_path, parse_sealed, write_sealed
from deploy.errors import DeployError, EngineMisfitError
from service.delivery.manifest import ENGINE, EngineEntry

_LOG = logging.getLogger(__name__)
_RUNTIME: Final = "tensorrt"
"""Whose engines are delivered: building one takes minutes, where other runtimes need a moment."""

_MOST_SAID: Final = 1000


@dataclass(frozen=True)
class Engines:
    """The engines of a delivered folder.

    Attributes:
        entries: What the manifest says of each.
        missing: Why there is none, of a job that was timed with one; None where there is, or none was to be expected.
    """

    entries: tuple[EngineEntry, ...] = ()
    missing: str | None = None


NONE: Final = Engines()
"""Of jobs that were timed without an engine."""


def deliver_engine(model: Path, bench: Bench) -> Engines:
    """Puts the engine that a model was timed with, and its metadata, beside the model.

    What stands in the way ends no job: the engine can be built of the model.

    Args:
        model: The delivered ONNX file.
        bench: The job's device.

    Raises:
        OSError: There is no room.
    """
    if bench.runtime != _RUNTIME:
        return NONE
    with TemporaryDirectory(dir=model.parent.parent) as name:
        try:
            engine = bench.engine(model, Path(name))
            if engine is None:
                return Engines(missing="the device has none")
            return Engines((take_engine(engine, model),))
        except DeployError as exc:
            _LOG.warning("no engine is delivered: %s", exc)
            return Engines(missing=_printable(str(exc)))


def _printable(words: str) -> str:
    """Returns what a device said, in one line of letters."""
    return "".join(letter if letter.isprintable() else " " for letter in words[:_MOST_SAID])


def take_engine(engine: Path, model: Path) -> EngineEntry:
    """Moves an engine that anybody may have sent beside its model, with its metadata, once both were checked.

    Args:
        engine: Its file, metadata beside it.
        model: The delivered ONNX file.

    Returns:
        What the manifest says of it.

    Raises:
        EngineMisfitError: It is not what its metadata say, or was built of another model.
    """
    metadata, seal = parse_sealed(metadata_path(engine).read_bytes())
    facts = (
        ("the engine was built of another model", metadata.onnx_sha256, hash_model(model)[0]),
        ("the metadata are those of another engine", file_digest(engine), metadata.engine_sha256),
    )
    for what, got, wanted in facts:
        if got != wanted:
            msg = f"{what}: SHA-256 {got}, wanted {wanted}"
            raise EngineMisfitError(msg)
    to = model.with_name(ENGINE)
    shutil.move(engine, to)
    # Written anew: what was not understood does not go on to others. The seal holds for the same values.
    metadata_path(to).write_text(write_sealed(metadata, seal))
    return EngineEntry(
        filename=ENGINE,
        onnx_sha256=metadata.onnx_sha256,
        runtime=f"{_RUNTIME} {metadata.tensorrt}",
        metadata=metadata.as_dict(),
    )
