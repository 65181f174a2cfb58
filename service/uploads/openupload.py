"""One upload that is being written: chunks are checked, made durable piece by piece, and put together at the end.

Another call may take over at any time, through this server or another one. The row in the database says whose turn it
is, so whoever was taken over from changes nothing any more.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self, final

from crc32c import crc32c
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from service.database.clock import now
from service.database.database import Database
from service.database.tables import ArtifactRow, PieceRow, UploadRow
from service.errors import (
    ChecksumMismatchError,
    ChunkChecksumError,
    ChunkOffsetError,
    InvalidRequestError,
    UploadIncompleteError,
    UploadSupersededError,
    Violation,
)
from service.storage.artifacts import (
    Artifact,
    ArtifactKind,
    ArtifactStore,
    add_artifact,
    find_upload,
    new_artifact,
    to_artifact,
)
from service.uploads.pieces import LostPieceError, Piece, keep_whole, new_writer, remove_pieces

MAX_CHUNK = 1 << 20


@final
class OpenUpload:
    """Not for more than one thread at a time."""

    def __init__(self, database: Database, artifacts: ArtifactStore, row: UploadRow, commit_bytes: int) -> None:
        """Goes on at the committed size; what somebody wrote beyond was never promised.

        Args:
            database: Where the upload's row is.
            artifacts: Where the file goes.
            row: The upload's, with `writer` set to a name that nobody else has.
            commit_bytes: What is written is made durable at least this often.
        """
        self._database, self._artifacts, self._row = database, artifacts, row
        self._size = self._committed = row.committed_size
        self._writer = new_writer(artifacts.storage, row.id, self._size)
        self._commit_bytes = min(commit_bytes, self._writer.most)
        self._over = False

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
            StorageUnavailableError: The storage does not answer; what was committed before stays.
            UploadSupersededError: Another call took over.
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
        self._writer.write(data)
        self._size += len(data)
        if self._size - self._committed >= self._commit_bytes:
            self.commit()

    def commit(self) -> None:
        """Makes everything written so far durable, and says so in the database.

        Raises:
            DiskFullError: There is no room for that.
            StorageUnavailableError: The storage does not answer.
            UploadSupersededError: Another call took over.
        """
        if self._size == self._committed:
            return
        try:
            piece = self._writer.flush()
            self._record_piece(piece)
        except BaseException:
            # Closing is not to try this again: it would take as long again to fail.
            self._over = True
            raise
        self._writer.settle()
        self._committed = self._size

    def _record_piece(self, piece: Piece) -> None:
        with self._database.write() as session:
            self._check_mine(session)
            mine = update(UploadRow).where(UploadRow.id == self._row.id)
            session.execute(mine.values(committed_size=self._size, update_time=now()))
            session.merge(PieceRow(upload_id=self._row.id, start=piece.start, size=piece.size, name=piece.name))

    def _check_mine(self, session: Session) -> None:
        """Makes sure, in a transaction that writes, that nobody took over.

        Raises:
            UploadSupersededError: Somebody did.
        """
        claim = update(UploadRow).where(
            UploadRow.id == self._row.id,
            UploadRow.writer == self._row.writer,
            UploadRow.committed_size == self._committed,
            UploadRow.artifact_id.is_(None),
        )
        claimed = claim.values(update_time=now()).returning(UploadRow.id)
        if session.scalar(claimed) is None:
            self._over = True
            query = select(UploadRow.committed_size).where(UploadRow.id == self._row.id)
            size = session.scalar(query) or 0
            raise UploadSupersededError("another call took over this upload, or it was forgotten", size)

    def finish(self) -> Artifact:
        """Checks the whole file and stores it.

        Raises:
            UploadIncompleteError: Bytes are missing; what arrived is kept.
            ChecksumMismatchError: The bytes are not those announced; the upload is discarded.
            DiskFullError: There is no room.
            StorageUnavailableError: The storage does not answer; what arrived is kept.
            UploadSupersededError: Another call took over.
        """
        self.commit()
        if self._size < self._row.size_bytes:
            raise UploadIncompleteError(
                f"{self._size} of {self._row.size_bytes} bytes arrived; go on from there", self._size
            )
        with self._database.read() as session:
            if (known := _finished(session, self._row.id)) is not None:
                return known
            pieces = durable_pieces(session, self._row.id)
        try:
            good = keep_whole(self._artifacts, pieces, self._row.sha256)
        except LostPieceError as exc:
            self._cut(exc.start)
            raise UploadIncompleteError(
                f"the server lost what it had stored from byte {exc.start} on; go on from there", exc.start
            ) from exc
        if not good:
            self._discard()
            raise ChecksumMismatchError(
                f"the file's SHA-256 is not {self._row.sha256}, which was announced; the upload is discarded"
            )
        artifact = self._record()
        remove_pieces(self._artifacts.storage, [piece.name for piece in pieces])
        return artifact

    def _cut(self, size: int) -> None:
        """Forgets what lies beyond `size`."""
        with self._database.write() as session:
            self._check_mine(session)
            session.execute(delete(PieceRow).where(PieceRow.upload_id == self._row.id, PieceRow.start >= size))
            session.execute(update(UploadRow).where(UploadRow.id == self._row.id).values(committed_size=size))
        self._size = self._committed = size
        self._over = True

    def _record(self) -> Artifact:
        kind = ArtifactKind(self._row.kind)
        with self._database.write() as session:
            row = self._row
            artifact = find_upload(session, row.sha256, kind, row.principal)
            if artifact is None:
                artifact = new_artifact(kind, row.filename, row.size_bytes, row.sha256, row.principal)
                add_artifact(session, artifact)
            session.execute(delete(PieceRow).where(PieceRow.upload_id == row.id))
            changed = update(UploadRow).where(UploadRow.id == row.id)
            session.execute(changed.values(artifact_id=artifact.id, update_time=now()))
        return artifact

    def _discard(self) -> None:
        """Forgets the upload and its pieces."""
        self._over = True
        with self._database.write() as session:
            self._check_mine(session)
            names = list(session.scalars(select(PieceRow.name).where(PieceRow.upload_id == self._row.id)))
            session.execute(delete(UploadRow).where(UploadRow.id == self._row.id))
        self._writer.drop()
        remove_pieces(self._artifacts.storage, names)

    def close(self) -> None:
        """Commits what it can and lets go. May be called twice."""
        try:
            if not self._over:
                self.commit()
        finally:
            self._over = True
            self._writer.close()


def durable_pieces(session: Session, key: str) -> list[Piece]:
    """Returns the pieces of an upload that follow each other from its beginning, in order."""
    query = select(PieceRow).where(PieceRow.upload_id == key).order_by(PieceRow.start)
    pieces: list[Piece] = []
    end = 0
    for row in session.scalars(query):
        if row.start != end:
            break
        pieces.append(Piece(row.start, row.size, row.name))
        end += row.size
    return pieces


def _finished(session: Session, key: str) -> Artifact | None:
    query = select(ArtifactRow).join(UploadRow, UploadRow.artifact_id == ArtifactRow.id).where(UploadRow.id == key)
    row = session.scalar(query)
    return None if row is None else to_artifact(row)
