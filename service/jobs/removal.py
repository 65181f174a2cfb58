"""Removing jobs and files for good: on request, and when their time is over. `service.storage.collect` takes the bytes.

Everything that is known of a job goes in one transaction: events, results, device work, its place in a trace. So a
crash leaves either all of it, or bytes and folders that nobody names any more and that are found by that.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path
from typing import final

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from service.database.database import Database
from service.database.tables import ArtifactRow, DeviceWorkRow, JobRow, UploadRow
from service.errors import ArtifactInUseError, JobActiveError, NotFoundError
from service.jobs.job import JOB_PREFIX
from service.jobs.references import artifacts_named, used_since, user_of
from service.jobs.states import FINAL, State
from service.storage.artifacts import ARTIFACT_PREFIX, ArtifactKind
from service.watching.kept import drop

_BATCH = 20
"""What one transaction removes: others wait for its end."""


@final
class Removal:
    """Every method blocks, and may be called from any thread."""

    def __init__(self, database: Database, folder: Path) -> None:
        """Removes from a database.

        Args:
            database: Where jobs and the facts of files are kept.
            folder: Of the jobs' own folders on this machine.
        """
        self._database, self._folder = database, folder

    def remove_job(self, job_id: str, principal: str | None = None) -> None:
        """Removes a finished job and what it made.

        Raises:
            NotFoundError: There is none, or it is another principal's.
            JobActiveError: It is not finished.
        """
        with self._database.write() as session:
            row = session.scalar(select(JobRow).where(JobRow.id == job_id))
            if row is None or principal not in {None, row.principal}:
                raise NotFoundError("job", JOB_PREFIX + job_id)
            if State(row.state) not in FINAL:
                raise JobActiveError(
                    f"{JOB_PREFIX}{job_id} is {row.state.lower()}; cancel it first and wait for its end, or set force"
                )
            _remove(session, row)
            # Before the end of the transaction: afterwards there may be a new job of this name.
            shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def remove_old_jobs(self, before: datetime) -> int:
        """Removes the jobs that ended before a moment, a few at a time; returns how many."""
        old = select(JobRow).where(JobRow.state.in_(FINAL), JobRow.end_time < before).order_by(JobRow.row).limit(_BATCH)
        removed = 0
        while True:
            with self._database.write() as session:
                rows = session.scalars(old).all()
                for row in rows:
                    _remove(session, row)
                    shutil.rmtree(self._folder / row.id, ignore_errors=True)
            removed += len(rows)
            if len(rows) < _BATCH:
                return removed

    def remove_artifact(self, artifact_id: str, principal: str | None = None) -> None:
        """Forgets an uploaded file.

        Raises:
            NotFoundError: There is none, or it is another principal's.
            ArtifactInUseError: A job made it, or one that is not finished needs it.
        """
        name = ARTIFACT_PREFIX + artifact_id
        with self._database.write() as session:
            row = session.scalar(select(ArtifactRow).where(ArtifactRow.id == artifact_id))
            if row is None or principal not in {None, row.principal}:
                raise NotFoundError("artifact", name)
            if row.kind == ArtifactKind.RESULT:
                raise ArtifactInUseError(f"{name} was made by a job and goes with it; delete the job")
            if (job_id := user_of(session, artifact_id)) is not None:
                raise ArtifactInUseError(f"{name} is needed by {JOB_PREFIX}{job_id}; cancel that, or wait for its end")
            _forget(session, [artifact_id])

    def remove_old_artifacts(self, before: datetime) -> int:
        """Forgets uploaded files that were sent, and last needed by a job, before a moment; returns how many."""
        sent_again = exists().where(UploadRow.artifact_id == ArtifactRow.id, UploadRow.update_time >= before)
        old = select(ArtifactRow.id).where(
            ArtifactRow.kind != ArtifactKind.RESULT, ArtifactRow.create_time < before, ~sent_again
        )
        with self._database.read() as session:
            candidates = list(session.scalars(old))
            used = used_since(session, before) if candidates else set()
        unused = [artifact_id for artifact_id in candidates if artifact_id not in used]
        for start in range(0, len(unused), _BATCH):
            with self._database.write() as session:
                batch = session.scalars(old.where(ArtifactRow.id.in_(unused[start : start + _BATCH]))).all()
                # Looked up before; a job that was created since then counts too.
                _forget(session, [each for each in batch if user_of(session, each) is None])
        return len(unused)

    def clear_folders(self) -> int:
        """Removes the folders of jobs that are no more; returns how many. Others' folders are not touched."""
        paths = [path for path in self._folder.glob("*") if path.is_dir()]
        with self._database.read() as session:
            known = set(session.scalars(select(JobRow.id)))
        return sum(self._clear_folder(path) for path in paths if path.name not in known)

    def _clear_folder(self, path: Path) -> bool:
        with self._database.write() as session:
            # In a transaction that writes, no job of this name can come up meanwhile.
            if session.scalar(select(JobRow.row).where(JobRow.id == path.name)) is not None:
                return False
            shutil.rmtree(path, ignore_errors=True)
            return True


def _remove(session: Session, row: JobRow) -> None:
    """Removes a job's row, with all that hangs on it."""
    made = list(artifacts_named((row.result or {}).get("artifacts", [])))
    session.execute(
        delete(ArtifactRow).where(
            ArtifactRow.id.in_(made), ArtifactRow.kind == ArtifactKind.RESULT, ArtifactRow.principal == row.principal
        )
    )
    name = JOB_PREFIX + row.id
    own = DeviceWorkRow.job_id == name
    drop(session, [name, *session.scalars(select(DeviceWorkRow.id).where(own))])
    session.execute(delete(DeviceWorkRow).where(own))
    # Its events and holds go with the row.
    session.execute(delete(JobRow).where(JobRow.row == row.row))


def _forget(session: Session, artifact_ids: list[str]) -> None:
    """Forgets files, and the uploads that brought them: the same upload is a new one from now on."""
    session.execute(delete(UploadRow).where(UploadRow.artifact_id.in_(artifact_ids)))
    session.execute(delete(ArtifactRow).where(ArtifactRow.id.in_(artifact_ids)))
