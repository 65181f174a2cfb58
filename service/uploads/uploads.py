"""Files on their way in: announced, let in or refused, and forgotten if nobody comes back for them."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from datetime import timedelta
from typing import final

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from service.access.principal import LOCAL_NAME
from service.database.clock import now
from service.database.database import Database
from service.database.tables import ArtifactRow, UploadRow
from service.errors import AlreadyExistsError, NotFoundError, QuotaError
from service.settings import ServerSettings
from service.storage.artifacts import (
    Artifact,
    ArtifactKind,
    ArtifactStore,
    add_artifact,
    find_upload,
    has_content,
    new_artifact,
    stored_bytes,
    to_artifact,
)
from service.storage.disk import check_free
from service.storage.holds import lock_content
from service.uploads.announcement import Announcement, checked, upload_key
from service.uploads.openupload import OpenUpload, durable_pieces
from service.uploads.pieces import piece_files, remove_pieces


@dataclass(frozen=True)
class UploadStatus:
    """How far an upload is; `artifact` once it is complete."""

    committed_size: int
    artifact: Artifact | None


@final
class Uploads:
    """All uploads of a server. Every method blocks, and may be called from any thread."""

    def __init__(self, database: Database, artifacts: ArtifactStore, settings: ServerSettings) -> None:
        """Keeps pieces in the artifacts' storage, and clears away those that nobody came back for.

        Raises:
            StorageUnavailableError: The storage does not answer.
        """
        self._database = database
        self._artifacts = artifacts
        self._settings = settings
        # Where older servers kept what they alone could go on with.
        shutil.rmtree(settings.state_dir / "uploads", ignore_errors=True)
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
            StorageUnavailableError: The storage does not answer.
        """
        announced, kind = checked(announced)
        self._check_size(announced.size_bytes, kind)
        # Asked before the transaction: a storage that is slow must not keep others from the database.
        held = self._artifacts.holds(announced.sha256, announced.size_bytes)
        with self._database.write() as session:
            lock_content(session)
            known = session.get(UploadRow, announced.key)
            row = known or _new_row(announced, kind)
            if known is not None:
                _check_same(known, announced)
                known.update_time = now()
                known.committed_size = sum(piece.size for piece in durable_pieces(session, known.id))
            if stored := self._stored(session, row, held=held):
                session.add(row)
                row.artifact_id, row.committed_size = stored.id, stored.size_bytes
                return stored
            self._check_share(session, announced, new=known is None)
            if row.artifact_id is not None:
                # It was stored once, and is gone: send it again.
                row.artifact_id, row.committed_size = None, 0
            self._check_room(announced.size_bytes - row.committed_size)
            row.writer = secrets.token_hex(8)
            session.add(row)
        return OpenUpload(self._database, self._artifacts, row, self._settings.commit_bytes)

    def _check_room(self, missing: int) -> None:
        if (folder := self._artifacts.storage.folder) is not None:
            check_free(folder, missing, self._settings.min_free_bytes)

    def _stored(self, session: Session, row: UploadRow, *, held: bool) -> Artifact | None:
        """Returns the artifact if its principal has these bytes here, under the same kind or another.

        What others have does not count: knowing a file's hash is not having the file, and nobody is told who else has.
        """
        if not held:
            return None
        kind = ArtifactKind(row.kind)
        if (artifact := find_upload(session, row.sha256, kind, row.principal)) is not None:
            return artifact
        if not has_content(session, row.sha256, row.principal):
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

    def forget_old(self) -> None:
        """Clears away what nobody came back for. May be called while uploads are under way: those are not old.

        Raises:
            StorageUnavailableError: The storage does not answer.
        """
        settings = self._settings
        limit = now() - timedelta(seconds=settings.upload_retention)
        # One that is complete tells when its file was last sent, for as long as that matters.
        sent = now() - timedelta(seconds=max(settings.upload_retention, settings.artifact_retention or 0.0))
        old = (UploadRow.update_time < limit) & UploadRow.artifact_id.is_(None) | (UploadRow.update_time < sent)
        # Listed first: a piece is made after its upload's row, so one that is here and has no row never gets one.
        found = piece_files(self._artifacts.storage)
        with self._database.write() as session:
            session.execute(delete(UploadRow).where(old))
            open_keys = set(session.scalars(select(UploadRow.id).where(UploadRow.artifact_id.is_(None))))
        remove_pieces(self._artifacts.storage, [name for name, key in found.items() if key not in open_keys])


def _new_row(announced: Announcement, kind: ArtifactKind) -> UploadRow:
    return UploadRow(
        id=announced.key,
        principal=announced.principal,
        kind=kind,
        filename=announced.filename,
        size_bytes=announced.size_bytes,
        sha256=announced.sha256,
        committed_size=0,
        update_time=now(),
    )


def _check_same(known: UploadRow, wanted: Announcement) -> None:
    if (known.kind, known.size_bytes, known.sha256) != (wanted.kind, wanted.size_bytes, wanted.sha256):
        name = wanted.upload_id
        raise AlreadyExistsError("upload", name, f"upload {name} announced another file before; choose a new upload_id")
