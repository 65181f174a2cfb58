"""Files on their way in: appended piece by piece to a partial file, durable up to a committed size, resumable."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, final

from crc32c import crc32c
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.artifacts import (
    Artifact,
    ArtifactKind,
    ArtifactStore,
    add_artifact,
    file_digest,
    find_upload,
    new_artifact,
    safe_filename,
    to_artifact,
)
from service.database import ArtifactRow, Database, UploadRow, now
from service.disk import check_free, disk_errors
from service.errors import (
    AlreadyExistsError,
    ChecksumMismatchError,
    ChunkChecksumError,
    ChunkOffsetError,
    InvalidRequestError,
    NotFoundError,
    QuotaError,
    UploadIncompleteError,
    Violation,
)
from service.settings import ServerSettings

MAX_CHUNK = 1 << 20
_UPLOAD_ID = re.compile(r"[a-z0-9-]{8,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Announcement:
    """What a client says that it will send; `kind` is None if it named none."""

    upload_id: str
    kind: ArtifactKind | None
    filename: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class UploadStatus:
    """How far an upload is; `artifact` once it is complete."""

    committed_size: int
    artifact: Artifact | None


@final
class Uploads:
    """All uploads of a server. Every method blocks, and may be called from any thread."""

    def __init__(self, database: Database, artifacts: ArtifactStore, settings: ServerSettings) -> None:
        """Keeps partial files in the state folder, and clears away those that nobody came back for."""
        self._database = database
        self._artifacts = artifacts
        self._settings = settings
        self._folder = settings.state_dir / "uploads"
        with disk_errors("the upload folder"):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._forget_old()

    def status(self, upload_id: str) -> UploadStatus:
        """Returns how far an upload is.

        Raises:
            NotFoundError: It is unknown, was discarded, or was forgotten.
        """
        query = (
            select(UploadRow, ArtifactRow)
            .outerjoin(ArtifactRow, ArtifactRow.id == UploadRow.artifact_id)
            .where(UploadRow.id == upload_id)
        )
        with self._database.read() as session:
            found = session.execute(query).one_or_none()
        if found is None:
            raise NotFoundError("upload", upload_id)
        upload, artifact = found
        return UploadStatus(upload.committed_size, None if artifact is None else to_artifact(artifact))

    def begin(self, announced: Announcement) -> Artifact | OpenUpload:
        """Starts an upload or takes it up again.

        Returns:
            The stored file if its bytes are here already; else the open upload, to be closed by the caller.

        Raises:
            InvalidRequestError: The announcement breaks a rule.
            QuotaError: The file is larger than this server takes.
            AlreadyExistsError: The upload id announced another file before.
            DiskFullError: It does not fit.
        """
        announced, kind = _checked(announced)
        self._check_size(announced.size_bytes, kind)
        row = UploadRow(
            id=announced.upload_id,
            kind=kind,
            filename=announced.filename,
            size_bytes=announced.size_bytes,
            sha256=announced.sha256,
            committed_size=0,
            update_time=now(),
        )
        with self._database.write() as session:
            known = session.get(UploadRow, announced.upload_id)
            if known is not None:
                _check_same(known, row)
            row = known or row
            if stored := self._stored(session, row):
                session.add(row)
                row.artifact_id, row.committed_size = stored.id, stored.size_bytes
                return stored
            missing = announced.size_bytes - row.committed_size
            check_free(self._folder, missing, self._settings.min_free_bytes)
            session.add(row)
        return OpenUpload(self._database, self._artifacts, row, self._partial(row.id), self._settings.commit_bytes)

    def _stored(self, session: Session, row: UploadRow) -> Artifact | None:
        kind = ArtifactKind(row.kind)
        if (artifact := find_upload(session, row.sha256, kind)) or not self._artifacts.holds(
            row.sha256, row.size_bytes
        ):
            return artifact
        # The bytes are here, under another kind or because the database was full when they had just been stored.
        artifact = new_artifact(kind, row.filename, row.size_bytes, row.sha256)
        add_artifact(session, artifact)
        return artifact

    def _check_size(self, size: int, kind: ArtifactKind) -> None:
        limits = {
            ArtifactKind.MODEL: self._settings.max_model_bytes,
            ArtifactKind.WEIGHTS: self._settings.max_weights_bytes,
            ArtifactKind.DATA: self._settings.max_data_bytes,
        }
        if size > limits[kind]:
            raise QuotaError(
                "size_bytes", f"{kind.lower()} files may have {limits[kind]} bytes on this server; this one has {size}"
            )

    def _partial(self, upload_id: str) -> Path:
        return self._folder / f"{upload_id}.part"

    def _forget_old(self) -> None:
        limit = now() - timedelta(seconds=self._settings.upload_retention)
        with self._database.write() as session:
            for row in session.scalars(select(UploadRow).where(UploadRow.update_time < limit)):
                session.delete(row)
            session.flush()
            open_ids = set(session.scalars(select(UploadRow.id).where(UploadRow.artifact_id.is_(None))))
        for path in self._folder.glob("*.part"):
            if path.stem not in open_ids:
                path.unlink()


@final
class OpenUpload:
    """One upload that is being written. Not for more than one thread at a time."""

    def __init__(
        self, database: Database, artifacts: ArtifactStore, row: UploadRow, partial: Path, commit_bytes: int
    ) -> None:
        """Opens the partial file at the committed size; what lies beyond was never promised and is cut off."""
        self._database = database
        self._artifacts = artifacts
        self._row = row
        self._partial = partial
        self._commit_bytes = commit_bytes
        self._file = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        # Shorter than committed: somebody emptied the folder. Then that much is all there is.
        self._size = self._committed = min(row.committed_size, os.fstat(self._file).st_size)
        os.ftruncate(self._file, self._size)
        os.lseek(self._file, self._size, os.SEEK_SET)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Bytes written so far: where the next chunk must start."""
        return self._size

    def append(self, offset: int, data: bytes, checksum: int) -> None:
        """Writes one chunk.

        Args:
            offset: Where it says that it belongs.
            data: Its bytes, at most 1 MiB.
            checksum: Their CRC-32C.

        Raises:
            InvalidRequestError: The chunk is empty or too large.
            ChunkOffsetError: It does not start at `size`.
            ChunkChecksumError: Its bytes were changed on the way.
            ChecksumMismatchError: It goes beyond the announced size; the upload is discarded.
            DiskFullError: There is no room; what was written before stays.
        """
        if not 0 < len(data) <= MAX_CHUNK:
            raise InvalidRequestError([Violation("chunk.data", f"has {len(data)} bytes; send 1 to {MAX_CHUNK}")])
        if offset != self._size:
            self.commit()
            raise ChunkOffsetError(
                f"chunk starts at {offset}, but {self._size} bytes are stored; go on from there", self._size
            )
        if crc32c(data) != checksum:
            self.commit()
            raise ChunkChecksumError(
                f"chunk at {offset} does not have the CRC-32C {checksum:08x} that it states; send it again", self._size
            )
        if self._size + len(data) > self._row.size_bytes:
            self._discard()
            raise ChecksumMismatchError(
                f"more than the announced {self._row.size_bytes} bytes arrived; the upload is discarded"
            )
        self._write(data)
        if self._size - self._committed >= self._commit_bytes:
            self.commit()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            with disk_errors("uploads"):
                while view:
                    view = view[os.write(self._file, view) :]
        except BaseException:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            raise
        self._size += len(data)

    def commit(self) -> None:
        """Makes everything written so far durable, and says so in the database.

        Raises:
            DiskFullError: There is no room for that.
        """
        if self._size == self._committed:
            return
        with disk_errors("uploads"):
            os.fsync(self._file)
        with self._database.write() as session:
            changed = update(UploadRow).where(UploadRow.id == self._row.id)
            session.execute(changed.values(committed_size=self._size, update_time=now()))
        self._committed = self._size

    def finish(self) -> Artifact:
        """Checks the whole file and stores it.

        Raises:
            UploadIncompleteError: Bytes are missing; what arrived is kept.
            ChecksumMismatchError: The bytes are not those announced; the upload is discarded.
            DiskFullError: There is no room.
        """
        self.commit()
        if self._size < self._row.size_bytes:
            raise UploadIncompleteError(
                f"{self._size} of {self._row.size_bytes} bytes arrived; go on from there", self._size
            )
        digest = file_digest(self._partial)
        if digest != self._row.sha256:
            self._discard()
            raise ChecksumMismatchError(
                f"the file's SHA-256 is {digest}, but {self._row.sha256} was announced; the upload is discarded"
            )
        self._artifacts.keep(self._partial, digest)
        return self._record()

    def _record(self) -> Artifact:
        kind = ArtifactKind(self._row.kind)
        with self._database.write() as session:
            artifact = find_upload(session, self._row.sha256, kind)
            if artifact is None:
                artifact = new_artifact(kind, self._row.filename, self._row.size_bytes, self._row.sha256)
                add_artifact(session, artifact)
            changed = update(UploadRow).where(UploadRow.id == self._row.id)
            session.execute(changed.values(artifact_id=artifact.id, update_time=now()))
        return artifact

    def _discard(self) -> None:
        self._partial.unlink(missing_ok=True)
        with self._database.write() as session:
            if row := session.get(UploadRow, self._row.id):
                session.delete(row)
        self._committed = self._size

    def close(self) -> None:
        """Commits what it can and lets go of the file. May be called twice."""
        if self._file < 0:
            return
        try:
            self.commit()
        finally:
            os.close(self._file)
            self._file = -1


def _checked(announced: Announcement) -> tuple[Announcement, ArtifactKind]:
    filename, sha256 = safe_filename(announced.filename), announced.sha256.lower()
    rules = {
        "metadata.upload_id": (_UPLOAD_ID.fullmatch(announced.upload_id), "must be 8 to 64 of [a-z0-9-]"),
        "metadata.kind": (
            announced.kind not in {None, ArtifactKind.RESULT},
            "must be ARTIFACT_KIND_MODEL, _WEIGHTS or _DATA",
        ),
        "metadata.filename": (filename and len(announced.filename) <= 1024, "must be a file name"),
        "metadata.size_bytes": (announced.size_bytes > 0, "must be the size of the whole file, at least 1"),
        "metadata.sha256": (_SHA256.fullmatch(sha256), "must be 64 hexadecimal digits"),
    }
    if broken := [Violation(field, rule) for field, (holds, rule) in rules.items() if not holds]:
        raise InvalidRequestError(broken)
    assert announced.kind is not None
    cleaned = Announcement(announced.upload_id, announced.kind, filename, announced.size_bytes, sha256)
    return cleaned, announced.kind


def _check_same(known: UploadRow, wanted: UploadRow) -> None:
    if (known.kind, known.size_bytes, known.sha256) != (wanted.kind, wanted.size_bytes, wanted.sha256):
        raise AlreadyExistsError(
            "upload", wanted.id, f"upload {wanted.id} announced another file before; choose a new upload_id"
        )
