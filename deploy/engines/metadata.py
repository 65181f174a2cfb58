"""What is known about an engine, kept in a JSON file beside it and sealed, so that only our own engines are loaded.

An engine file is executable code: whoever wrote it runs it in the process that loads it. So an engine is loaded only if
its metadata carries a seal (HMAC-SHA256) made with a key that never leaves this machine and user, and if its own bytes
are those that the metadata names. What fits is another question, answered by `check_engine`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any, Final

from deploy.engines.place import read_key, write_atomically
from deploy.engines.settings import Batches
from deploy.engines.versions import parse_version
from deploy.errors import EngineBuildError, EngineMisfitError
from deploy.gpu import Gpu

SUFFIX = ".json"
"""Metadata of `x.engine` is in `x.engine.json`."""

_FORMAT = 1
_NO_METADATA = "{name} is no metadata of an engine, or of another version of Shoal; build the engine anew"
MOST_METADATA: Final = 1 << 20
"""Bytes of an engine's metadata that are read."""

_LONGEST = 256
_LARGEST = 1 << 63


@dataclass(frozen=True)
class EngineMetadata:
    """What an engine was built from, by what, for what.

    Attributes:
        tensorrt: Version of TensorRT that built it, and the only one that runs it.
        cuda: CUDA version that the driver supported.
        driver: Version of the driver; None where it was not told.
        gpu: The GPU's name.
        compute_capability: The GPU's.
        shares_memory: Whether the GPU uses the processor's memory.
        batches: Smallest, best and largest batch.
        workspace_bytes: Scratch memory that kernels were allowed.
        optimization_level: Of the builder.
        onnx_sha256: Of the file that it was built from, with its external weights.
        engine_sha256: Of the engine's bytes. Two builds of one file differ, so this names the one that was measured.
    """

    tensorrt: str
    cuda: str
    driver: str | None
    gpu: str
    compute_capability: str
    shares_memory: bool
    batches: Batches
    workspace_bytes: int
    optimization_level: int
    onnx_sha256: str
    engine_sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        return {"format": _FORMAT, **asdict(self)}


def metadata_path(engine: Path) -> Path:
    """Returns where an engine's metadata lies."""
    return engine.with_name(engine.name + SUFFIX)


def write_metadata(engine: Path, metadata: EngineMetadata, folder: Path) -> None:
    """Writes the metadata beside the engine, sealed.

    Args:
        engine: The engine's file.
        metadata: What to write.
        folder: Where the key is, see `deploy.engines.place`.
    """
    seal = _seal(metadata.as_dict(), read_key(folder))
    write_atomically(metadata_path(engine), write_sealed(metadata, seal).encode())


def read_engine(engine: Path, folder: Path) -> tuple[bytes, EngineMetadata]:
    """Returns an engine's bytes and metadata, if both are as Shoal wrote them here.

    Args:
        engine: The engine's file.
        folder: Where the key is, see `deploy.engines.place`.

    Raises:
        EngineMisfitError: If there is no metadata, or it was not sealed on this machine, or the bytes are others.
    """
    metadata = read_metadata(engine, folder)
    try:
        content = engine.read_bytes()
    except OSError as exc:
        msg = f"cannot read the engine '{engine.name}': {exc.strerror}"
        raise EngineMisfitError(msg) from exc
    found = hashlib.sha256(content).hexdigest()
    if found != metadata.engine_sha256:
        msg = (
            f"'{engine.name}' has SHA-256 {found[:12]}..., and its metadata says {metadata.engine_sha256[:12]}...: "
            f"it was changed or damaged, and is not loaded; build it anew from the ONNX file"
        )
        raise EngineMisfitError(msg)
    return content, metadata


def read_metadata(engine: Path, folder: Path) -> EngineMetadata:
    """Returns an engine's metadata, if Shoal wrote it here.

    Raises:
        EngineMisfitError: If there is none, it cannot be read, or it was not sealed on this machine.
    """
    path = metadata_path(engine)
    try:
        with path.open("rb") as file:
            text = file.read(MOST_METADATA)
        both = json.loads(text)
        values, seal = both["engine"], both["seal"]
        metadata = _parse(values)
    except OSError as exc:
        msg = f"'{engine.name}' has no '{path.name}' beside it, so nobody knows who built it; it is not loaded"
        raise EngineMisfitError(msg) from exc
    except (ValueError, KeyError, TypeError) as exc:
        msg = _NO_METADATA.format(name=f"'{path.name}'")
        raise EngineMisfitError(msg) from exc
    if not isinstance(seal, str) or not hmac.compare_digest(seal.encode(), _seal(values, read_key(folder)).encode()):
        msg = (
            f"'{engine.name}' was not built by Shoal on this machine, and engines are programs: it is not loaded; "
            f"build it here from the ONNX file"
        )
        raise EngineMisfitError(msg)
    return metadata


def check_engine(metadata: EngineMetadata, gpu: Gpu, tensorrt: str) -> None:
    """Makes sure that an engine runs on a device.

    Args:
        metadata: The engine's.
        gpu: What is to run it.
        tensorrt: The version of TensorRT that is to run it.

    Raises:
        EngineMisfitError: It does not; every reason is named.
    """
    wrong = []
    if metadata.tensorrt != tensorrt:
        wrong.append(f"built by TensorRT {metadata.tensorrt}, here is {tensorrt}")
    if metadata.compute_capability != gpu.compute_capability:
        wrong.append(f"built for compute capability {metadata.compute_capability}, here is {gpu.compute_capability}")
    if metadata.gpu != gpu.name:
        wrong.append(f"built for '{metadata.gpu}', here is '{gpu.name}'")
    if parse_version(gpu.cuda) < parse_version(metadata.cuda):
        wrong.append(f"built under CUDA {metadata.cuda}, the driver here supports {gpu.cuda}")
    if wrong:
        msg = f"the engine does not fit 'cuda:{gpu.index}': {'; '.join(wrong)}; build it there from the ONNX file"
        raise EngineMisfitError(msg)


def write_sealed(metadata: EngineMetadata, seal: str) -> str:
    """Returns what lies beside an engine, as JSON."""
    return json.dumps({"engine": metadata.as_dict(), "seal": seal}, indent=2)


def parse_sealed(content: bytes) -> tuple[EngineMetadata, str]:
    """Returns metadata and their seal from what lies beside an engine, whoever wrote it: nothing says that it is true.

    Raises:
        EngineMisfitError: It is something else, or of another version of Shoal.
    """
    try:
        match json.loads(content):
            case {"engine": values, "seal": str(seal)} if re.fullmatch("[0-9a-f]{64}", seal):
                return parse_metadata(values), seal
    except (ValueError, RecursionError):
        pass
    raise EngineMisfitError(_NO_METADATA.format(name="what came with the engine"))


def parse_metadata(values: Any) -> EngineMetadata:
    """Returns metadata from what `EngineMetadata.as_dict` gave, whoever holds it: nothing says that it is true.

    Raises:
        EngineMisfitError: It is something else, or of another version of Shoal.
    """
    try:
        metadata = _parse(values)
    except (ValueError, KeyError, TypeError, EngineBuildError) as exc:
        raise EngineMisfitError(_NO_METADATA.format(name="what is stated of the engine")) from exc
    if not _is_plain(metadata):
        raise EngineMisfitError(_NO_METADATA.format(name="what is stated of the engine"))
    return metadata


def _is_plain(metadata: EngineMetadata) -> bool:
    """Returns whether every value is of its type, and short: `_parse` takes them as they come."""
    words = [metadata.gpu, metadata.tensorrt, metadata.cuda, metadata.compute_capability]
    words += [] if metadata.driver is None else [metadata.driver]
    numbers = (*astuple(metadata.batches), metadata.workspace_bytes, metadata.optimization_level)
    digests = (metadata.onnx_sha256, metadata.engine_sha256)
    return (
        all(isinstance(word, str) and word.isascii() and word.isprintable() and len(word) <= _LONGEST for word in words)
        and all(type(number) is int and 0 <= number < _LARGEST for number in numbers)
        and all(isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
        and isinstance(metadata.shares_memory, bool)
    )


def _parse(values: Any) -> EngineMetadata:
    if values["format"] != _FORMAT:
        raise ValueError
    wanted = {field.name for field in fields(EngineMetadata)}
    given = {name: values[name] for name in wanted}
    return EngineMetadata(**{**given, "batches": Batches(**values["batches"])})


def _seal(values: Any, key: bytes) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
