"""Stored files: bytes under their SHA-256 in the storage, facts in the database."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.access.principal import LOCAL_NAME
from service.database.clock import now
from service.database.database import Database
from service.database.tables import ArtifactRow
from service.errors import ArtifactDamagedError, NotFoundError, OffsetRangeError
from service.storage.disk import disk_errors
from service.storage.storage import SMALL, Reading, Storage

ARTIFACT_PREFIX = "artifacts/"
MAX_FILENAME = 255
_BLOCK = 1 << 20


class ArtifactKind(StrEnum):
    """What a file is for; the proto's enum without the prefix."""

    MODEL = "MODEL"
    WEIGHTS = "WEIGHTS"
    DATA = "DATA"
    RESULT = "RESULT"


@dataclass(frozen=True)
class Artifact:
    """One stored file.

    Attributes:
        id: Last part of its resource name.
        filename: As the caller named it, without folders.
        sha256: Hexadecimal, lower case.
        principal: Whose it is.
    """

    id: str
    kind: ArtifactKind
    filename: str
    size_bytes: int
    sha256: str
    create_time: datetime
    principal: str = LOCAL_NAME

    @property
    def name(self) -> str:
        """Resource name."""
        return ARTIFACT_PREFIX + self.id


@final
class ArtifactStore:
    """Files by content. Every method blocks, and may be called from any thread."""

    def __init__(self, database: Database, place: str | Storage) -> None:
        """Opens the store.

        Args:
            database: Where the facts are kept.
            place: Where the bytes are, or its fsspec URL.

        Raises:
            ServiceError: See `Storage`.
        """
        self._database = database
        self.storage = Storage(place) if isinstance(place, str) else place

    def get(self, artifact_id: str, principal: str | None = None) -> Artifact:
        """Returns the facts.

        Raises:
            NotFoundError: There is none, or it is another principal's.
        """
        with self._database.read() as session:
            row = session.scalar(select(ArtifactRow).where(ArtifactRow.id == artifact_id))
        if row is None or principal not in {None, row.principal}:
            raise NotFoundError("artifact", ARTIFACT_PREFIX + artifact_id)
        return to_artifact(row)

    def newest(self, limit: int, before: int | None = None, principal: str | None = None) -> list[tuple[int, Artifact]]:
        """Returns up to `limit` files, newest first, each with the number to go on `before`; all or a principal's."""
        query = select(ArtifactRow).order_by(ArtifactRow.row.desc()).limit(limit)
        if principal is not None:
            query = query.where(ArtifactRow.principal == principal)
        if before is not None:
            query = query.where(ArtifactRow.row < before)
        with self._database.read() as session:
            return [(row.row, to_artifact(row)) for row in session.scalars(query)]

    def holds(self, sha256: str, size_bytes: int) -> bool:
        """Returns whether bytes with this SHA-256 are in the store, whatever they were called.

        Raises:
            StorageUnavailableError: Nobody knows.
        """
        return self.storage.size(blob_path(sha256)) == size_bytes

    def keep(self, source: Path, sha256: str) -> None:
        """Puts a local file's bytes under their SHA-256; the file is gone from where it was then.

        The bytes have to be named in the database before (`service.storage.holds`), so that nobody takes them away.

        Raises:
            StorageUnavailableError: The store does not answer; the file stays.
            DiskFullError: There is no room; the file stays.
        """
        path, size = blob_path(sha256), source.stat().st_size
        if self.holds(sha256, size):
            source.unlink()
            return
        if self.storage.folder is not None:
            self.storage.check()
            with self.storage.guarded():
                _move(source, self.storage.folder / path)
            return
        if size <= SMALL:
            self.storage.put(path, source.read_bytes())
        else:
            with self.storage.writing(path) as target, source.open("rb") as stream:
                shutil.copyfileobj(stream, target, _BLOCK)
        source.unlink()

    def keep_blocks(self, blocks: Iterable[bytes], sha256: str, size_bytes: int) -> bool:
        """Puts bytes under their SHA-256; returns whether they have it. If not, nothing is put.

        Raises:
            StorageUnavailableError: The store does not answer.
            DiskFullError: There is no room.
        """
        digest = hashlib.sha256()
        if self.holds(sha256, size_bytes):
            for block in blocks:
                digest.update(block)
            return digest.hexdigest() == sha256
        try:
            if size_bytes <= SMALL:
                data = b"".join(blocks)
                _check_digest(hashlib.sha256(data), sha256)
                self.storage.put(blob_path(sha256), data)
                return True
            with self.storage.writing(blob_path(sha256)) as target:
                for block in blocks:
                    digest.update(block)
                    target.write(block)
                _check_digest(digest, sha256)
        except ArtifactDamagedError:
            return False
        return True

    def open(self, artifact: Artifact, offset: int = 0) -> Reading:
        """Opens the bytes for reading at `offset`; to be closed by the caller.

        Raises:
            OffsetRangeError: The offset lies outside of the file.
            ArtifactDamagedError: The bytes are gone or have another length.
            StorageUnavailableError: The store does not answer.
        """
        if not 0 <= offset <= artifact.size_bytes:
            raise OffsetRangeError(
                f"offset {offset} lies outside of {artifact.name}, which has {artifact.size_bytes} bytes"
            )
        path = blob_path(artifact.sha256)
        size = self.storage.size(path)
        if size not in {None, artifact.size_bytes}:
            raise ArtifactDamagedError(f"{artifact.name} has {size} bytes in the store, not {artifact.size_bytes}")
        try:
            return self.storage.open(path, offset)
        except FileNotFoundError as exc:
            raise ArtifactDamagedError(f"the bytes of {artifact.name} are gone from the store") from exc

    def local_path(self, artifact: Artifact, folder: Path) -> Path:
        """Returns a local, read-only path of the bytes: `folder/{id}/{filename}`, a link or a checked copy.

        Raises:
            ArtifactDamagedError: The bytes are gone, have another length, or are others (known of copies only).
            StorageUnavailableError: The store does not answer.
            DiskFullError: There is no room for the copy.
        """
        path = folder / artifact.id / artifact.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with self.open(artifact) as stream, disk_errors("the job's folder"):
            if self.storage.folder is not None:
                path.symlink_to(self.storage.folder / blob_path(artifact.sha256))
            else:
                _copy_checked(stream, path, artifact)
        return path


def blob_path(sha256: str) -> str:
    """Returns where bytes with this SHA-256 are in the storage."""
    return f"{sha256[:2]}/{sha256}"


def new_artifact(
    kind: ArtifactKind, filename: str, size_bytes: int, sha256: str, principal: str = LOCAL_NAME
) -> Artifact:
    """Returns the facts of a file that is about to be recorded, with a fresh id."""
    return Artifact(secrets.token_hex(10), kind, filename, size_bytes, sha256, now(), principal)


def add_artifact(session: Session, artifact: Artifact) -> None:
    """Records a file whose bytes are in the store."""
    session.add(
        ArtifactRow(
            id=artifact.id,
            kind=artifact.kind,
            filename=artifact.filename,
            size_bytes=artifact.size_bytes,
            sha256=artifact.sha256,
            principal=artifact.principal,
            create_time=artifact.create_time,
        )
    )
    session.flush()


def find_upload(session: Session, sha256: str, kind: ArtifactKind, principal: str) -> Artifact | None:
    """Returns the uploaded (not made) file of a principal with this content."""
    query = select(ArtifactRow).where(
        ArtifactRow.principal == principal,
        ArtifactRow.sha256 == sha256,
        ArtifactRow.kind == kind,
        ArtifactRow.kind != ArtifactKind.RESULT,
    )
    row = session.scalar(query)
    return None if row is None else to_artifact(row)


def has_content(session: Session, sha256: str, principal: str) -> bool:
    """Returns whether a principal has a file with these bytes, of any kind."""
    query = select(ArtifactRow.row).where(ArtifactRow.principal == principal, ArtifactRow.sha256 == sha256).limit(1)
    return session.scalar(query) is not None


def stored_bytes(session: Session, principal: str) -> int:
    """Returns the size of all files of a principal; what others have too counts in full."""
    query = select(func.coalesce(func.sum(ArtifactRow.size_bytes), 0)).where(ArtifactRow.principal == principal)
    return int(session.scalar(query) or 0)


def to_artifact(row: ArtifactRow) -> Artifact:
    """Returns a row's facts."""
    return Artifact(
        row.id, ArtifactKind(row.kind), row.filename, row.size_bytes, row.sha256, row.create_time, row.principal
    )


def safe_filename(name: str) -> str:
    """Returns the last part of a path as a harmless file name of at most 255 bytes; empty if nothing is left."""
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    base = "".join(char for char in base if unicodedata.category(char)[0] != "C").strip().lstrip(".")
    return base.encode()[-MAX_FILENAME:].decode(errors="ignore")


def _copy_checked(stream: Reading, path: Path, artifact: Artifact) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("wb") as copy:
            while block := stream.read(_BLOCK):
                digest.update(block)
                copy.write(block)
        _check_digest(digest, artifact.sha256)
        path.chmod(0o444)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _check_digest(digest: hashlib._Hash, sha256: str) -> None:
    if digest.hexdigest() != sha256:
        raise ArtifactDamagedError(f"the bytes stored as {sha256} have the SHA-256 {digest.hexdigest()}")


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.chmod(0o444)
    try:
        source.replace(target)
    except OSError:
        # Another file system: copy beside the target, then rename.
        partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
        try:
            shutil.copyfile(source, partial)
            partial.chmod(0o444)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        source.unlink()
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
