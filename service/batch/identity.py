"""What a piece of work is known by: a hash of everything that its result depends on, and of nothing else.

Names, places and dates are no part of it: the same bytes with the same settings are the same work, wherever they are.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from deploy.digest import file_digest
from service.cli import modelfile, parse, splits

if TYPE_CHECKING:
    from protos.shoal.v1 import optimization_job_pb2 as job_pb
    from service.cli.request import ModelFlags

FORMAT: Final = 1
"""Raised when the same request has to be done again because results of older programs are not to be kept."""


def hash_model(path: Path) -> str:
    """Returns the SHA-256 of a model's file, or of the names and contents of all its parts.

    Args:
        path: A file, archive or folder that the service takes.

    Raises:
        InputError: It is no such thing, or a part of it is missing.
        OSError: It cannot be read.
    """
    parts = modelfile.parts(path)
    return _hash_parts(parts, path if path.is_dir() else path.parent) if parts else file_digest(path)


def size_of_model(path: Path) -> int:
    """Returns the bytes in a model's file or parts."""
    return sum(part.stat().st_size for part in modelfile.parts(path) or [path])


def hash_split(split: splits.Split) -> str:
    """Returns the SHA-256 of a file of samples, or of the names and contents of a folder's or shards' files."""
    if isinstance(split, Path) and split.is_file():
        return file_digest(split)
    files = [path for path in sorted(split.rglob("*")) if path.is_file()] if isinstance(split, Path) else split.files
    top = split if isinstance(split, Path) else split.files[0].parent
    return _hash_parts([path for path in files if not path.name.startswith(".")], top)


def _hash_parts(parts: Iterable[Path], top: Path) -> str:
    listed = sorted((part.relative_to(top).as_posix(), file_digest(part)) for part in parts)
    return _hash_json(listed)


def identify(content: str, weights: str | None, model: ModelFlags, rest: dict[str, Any]) -> str:
    """Returns the identity of a piece of work.

    Args:
        content: SHA-256 of the model's files, or its name where it is an architecture.
        weights: SHA-256 of the weights of a named architecture.
        model: Which network, and what is said about it.
        rest: The request without its model, samples by their SHA-256.

    Returns:
        64 hexadecimal digits.
    """
    network = {
        "content": content,
        "weights": weights,
        "architecture": model.model if parse.architecture(model.model) else None,
        "num_classes": model.num_classes,
        "sample_shape": model.sample_shape,
        "input_shape": sorted(model.input_shape),
        "pretrained": model.pretrained,
        "task": model.task,
    }
    return _hash_json({"format": FORMAT, "model": network, "request": rest})


def request_id(identity: str, attempt: int, spec: job_pb.OptimizationJobSpec, display_name: str) -> str:
    """Returns the id that makes the server create one job for one attempt at one piece of work.

    It has the form of a UUID4, which the server wants; its bits come from a hash of what is asked, so that a program
    that was killed asks with the same again. The request is part of it: one id must never stand for two requests.

    Args:
        identity: Of the work.
        attempt: How many jobs for it have failed before.
        spec: The request.
        display_name: What the job is called.
    """
    asked = spec.SerializeToString(deterministic=True)
    digest = hashlib.sha256(f"{identity}/{attempt}/{display_name}/".encode() + asked).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
