"""Files on their way in: appended piece by piece to a partial file, durable up to a committed size, resumable."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, final

from crc32c import crc32c
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from service.access.principal import LOCAL_NAME
from service.announcement import Announcement, checked, upload_key
from service.artifacts import (
    Artifact,
    ArtifactKind,
    ArtifactStore,
    add_artifact,
    file_digest,
    find_upload,
    has_content,
    new_artifact,
    stored_bytes,
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
from service.holds import lock_content
from service.settings import ServerSettings

MAX_CHUNK = 1 << 20


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
        self.forget_old()

    def status(self, upload_id: str, principal: str = LOCAL_NAME) -> UploadStatus:
        """Returns how far an upload of a principal is.

        Raises:
            NotFoundError: It is unknown, was discarded, or was forgotten.
        """
        query = (
            select(UploadRow, ArtifactRow)
            .outerjoin(ArtifactRow, ArtifactRow.id == UploadRow.artifact_id)
            .where(UploadRow.id == upload_key(principal, upload_id), UploadRow.principal == principal)
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
            QuotaError: The file is larger than this server takes, or the principal's share of the server is used up.
            AlreadyExistsError: The upload id announced another file before.
            DiskFullError: It does not fit.
        """
        announced, kind = checked(announced)
        self._check_size(announced.size_bytes, kind)
        row = UploadRow(
            id=announced.key,
            principal=announced.principal,
            kind=kind,
            filename=announced.filename,
            size_bytes=announced.size_bytes,
            sha256=announced.sha256,
            committed_size=0,
            update_time=now(),
        )
        with self._database.write() as session:
            lock_content(session)
            known = session.get(UploadRow, announced.key)
            if known is not None:
                _check_same(known, announced)
                known.update_time = now()
                # What the store took, and the database did not, is gone from here: it has to be sent again.
                known.committed_size = min(known.committed_size, _size(self._partial(known.id)))
            row = known or row
            if stored := self._stored(session, row):
                session.add(row)
                row.artifact_id, row.committed_size = stored.id, stored.size_bytes
                return stored
            self._check_share(session, announced, new=known is None)
            missing = announced.size_bytes - row.committed_size
            check_free(self._folder, missing, self._settings.min_free_bytes)
            session.add(row)
        return OpenUpload(self._database, self._artifacts, row, self._partial(row.id), self._settings.commit_bytes)

    def _stored(self, session: Session, row: UploadRow) -> Artifact | None:
        """Returns the artifact if its principal has these bytes here, under the same kind or another.

        What others have does not count: knowing a file's hash is not having the file, and nobody is told who else has.
        """
        kind = ArtifactKind(row.kind)
        if (artifact := find_upload(session, row.sha256, kind, row.principal)) is not None:
            return artifact
        if not has_content(session, row.sha256, row.principal) or not self._artifacts.holds(row.sha256, row.size_bytes):
            return None
        artifact = new_artifact(kind, row.filename, row.size_bytes, row.sha256, row.principal)
        add_artifact(session, artifact)
        return artifact

    def _check_share(self, session: Session, announced: Announcement, *, new: bool) -> None:
        under_way = (UploadRow.principal == announced.principal) & UploadRow.artifact_id.is_(None)
        most = self._settings.principal_uploads
        count, announced_bytes = session.execute(
            select(func.count(), func.coalesce(func.sum(UploadRow.size_bytes), 0)).where(under_way)
        ).one()
        if new and count >= most:
            raise QuotaError(
                "uploads under way",
                f"{count} of your uploads are unfinished, as many as one may have here; finish some of them first",
            )
        most = self._settings.principal_stored_bytes
        wanted = announced_bytes + (announced.size_bytes if new else 0)
        if (stored := stored_bytes(session, announced.principal)) + wanted > most:
            raise QuotaError(
                "stored bytes",
                f"your files have {stored} bytes here and your unfinished uploads, this one among them, another "
                f"{wanted}; one may have {most}",
            )

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

    def forget_old(self) -> None:
        """Clears away what nobody came back for. May be called while uploads are under way: those are not old."""
        settings = self._settings
        limit = now() - timedelta(seconds=settings.upload_retention)
        # One that is complete tells when its file was last sent, for as long as that matters.
        sent = now() - timedelta(seconds=max(settings.upload_retention, settings.artifact_retention or 0.0))
        old = (UploadRow.update_time < limit) & UploadRow.artifact_id.is_(None) | (UploadRow.update_time < sent)
        # Listed first: a file is made after its row, so one that is here and has no row never gets one.
        paths = list(self._folder.glob("*.part"))
        with self._database.write() as session:
            session.execute(delete(UploadRow).where(old))
            open_ids = set(session.scalars(select(UploadRow.id).where(UploadRow.artifact_id.is_(None))))
            for path in paths:
                if path.stem not in open_ids:
                    path.unlink(missing_ok=True)


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
            row = self._row
            artifact = find_upload(session, row.sha256, kind, row.principal)
            if artifact is None:
                artifact = new_artifact(kind, row.filename, row.size_bytes, row.sha256, row.principal)
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


def _check_same(known: UploadRow, wanted: Announcement) -> None:
    if (known.kind, known.size_bytes, known.sha256) != (wanted.kind, wanted.size_bytes, wanted.sha256):
        name = wanted.upload_id
        raise AlreadyExistsError("upload", name, f"upload {name} announced another file before; choose a new upload_id")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
