"""Taking over what a worker made: nothing is believed that was not checked."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from deploy.digest import file_digest
from service.delivery.manifest import DELIVERED, FILENAME, Manifest
from service.errors import WorkerProtocolError
from service.report.schema import Report
from service.storage.artifacts import Artifact, ArtifactKind, ArtifactStore, new_artifact
from service.worker.messages import AnalysisResult, ResultEvent

_REQUIRED = frozenset({"model.onnx", "report.json"})
_MAX_JSON = 64 << 20

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Delivery:
    """What a job made, checked.

    Attributes:
        report: What it says of it.
        artifacts: The facts of the files, not recorded in the database yet.
        files: Where each of them lies, by name.
    """

    report: Report
    artifacts: tuple[Artifact, ...]
    files: Mapping[str, Path]


def check_report(folder: Path, event: ResultEvent, principal: str) -> Delivery:
    """Checks a job's result.

    Args:
        folder: The job's folder. Nothing may write to it any more.
        event: What the worker announced.
        principal: Whose the files are to be.

    Raises:
        WorkerProtocolError: Files are missing, or are not what the report says.
    """
    report = _read(folder, event, Report)
    files = _plain_files(folder / "out")
    digests = {name: file_digest(path) for name, path in files.items()}
    _check_claims(report, files)
    _check_manifest(files, digests)
    artifacts = tuple(
        new_artifact(ArtifactKind.RESULT, name, path.stat().st_size, digests[name], principal)
        for name, path in files.items()
    )
    return Delivery(report, artifacts, files)


def store_report(delivery: Delivery, store: ArtifactStore) -> None:
    """Moves the files of a delivery into the store; what an earlier call has moved is passed over.

    Their job holds them (`service.storage.holds`).

    Raises:
        DiskFullError: There is no room.
        StorageUnavailableError: The store does not answer.
    """
    for artifact in delivery.artifacts:
        path = delivery.files[artifact.filename]
        if path.exists():
            store.keep(path, artifact.sha256)


def take_analysis(folder: Path, event: ResultEvent) -> AnalysisResult:
    """Returns a dry run's result.

    Raises:
        WorkerProtocolError: It is not there, or no analysis.
    """
    return _read(folder, event, AnalysisResult)


def _plain_files(folder: Path) -> dict[str, Path]:
    """Returns what was delivered; refuses what is there and is no plain file, which hashing would follow."""
    there = [folder / name for name in DELIVERED if os.path.lexists(folder / name)]
    if odd := [path.name for path in there if not _is_plain(path)]:
        raise WorkerProtocolError(f"the worker delivered {', '.join(odd)} as something other than a plain file")
    return {path.name: path for path in there}


def _check_claims(report: Report, files: dict[str, Path]) -> None:
    from deploy.artifact import hash_model

    if missing := _REQUIRED - files.keys():
        raise WorkerProtocolError(f"the worker announced a result without {', '.join(sorted(missing))}")
    claims = {(item.filename, item.sha256, item.size_bytes) for item in report.artifacts}
    claims |= {(item.filename, item.sha256, item.size_bytes) for item in (report.result, report.baseline)}
    for name, sha256, size in sorted(claims):
        if name not in files:
            raise WorkerProtocolError(f"the report names {name}, which is not among the files {sorted(files)}")
        if hash_model(files[name]) != (sha256, size):
            raise WorkerProtocolError(f"{name} is not the file that the report speaks of: size or SHA-256 differ")


def _check_manifest(files: dict[str, Path], digests: dict[str, str]) -> None:
    if FILENAME not in files:
        return
    manifest = _parse(files[FILENAME], Manifest)
    listed = {entry.filename: (entry.sha256, entry.size_bytes) for entry in manifest.files}
    found = {name: (digests[name], path.stat().st_size) for name, path in files.items() if name != FILENAME}
    if listed != found:
        differing = sorted(name for name in listed.keys() | found.keys() if listed.get(name) != found.get(name))
        raise WorkerProtocolError(f"the manifest does not speak of the files that are there: {', '.join(differing)}")


def _read(folder: Path, event: ResultEvent, model: type[_Model]) -> _Model:
    path = folder / event.file
    if path.parent != folder / "out" or not _is_plain(path) or path.stat().st_size > _MAX_JSON:
        raise WorkerProtocolError(f"the worker announced a result that is no file of at most {_MAX_JSON} bytes in out/")
    return _parse(path, model)


def _parse(path: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise WorkerProtocolError(f"the worker's {path.name} is no {model.__name__}: {where}: {first['msg']}") from exc


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
