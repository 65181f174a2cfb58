"""What a server clears away while it runs: rows first, then the folders and bytes that nobody names any more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, final

from service.database.clock import now
from service.database.database import Database
from service.jobs.removal import Removal
from service.settings import ServerSettings
from service.storage.collect import Collector
from service.storage.storage import Storage
from service.uploads.uploads import Uploads
from service.waiting import PASSING
from service.watching.meter import Meter

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE: Final = 3600.0


@final
class Keeper:
    """Clears away for one server. Every method blocks, and may be called from any thread."""

    def __init__(
        self, settings: ServerSettings, database: Database, storage: Storage, uploads: Uploads, meter: Meter
    ) -> None:
        """Clears nothing yet."""
        self._settings, self._uploads, self._meter = settings, uploads, meter
        self._removal = Removal(database, settings.state_dir / "jobs")
        self._collector = Collector(database, storage, settings.collect_grace)

    @property
    def pause(self) -> float:
        """Returns the seconds from one round to the next: an hour, or a quarter of the shortest time to keep things."""
        kept = (self._settings.upload_retention, self._settings.job_retention, self._settings.artifact_retention)
        return min(_LONGEST_PAUSE, *(seconds / 4 for seconds in kept if seconds is not None))

    def tidy(self) -> None:
        """Clears away what is old. One chore that fails does not keep the others from being done."""
        for what, chore in self._chores().items():
            try:
                chore()
            except PASSING as exc:
                _LOG.warning("cannot clear away %s now, trying again later: %s", what, exc)
            except Exception:  # noqa: BLE001 (the next round may do better)
                _LOG.exception("cannot clear away %s, trying again later", what)

    def _chores(self) -> dict[str, Callable[[], None]]:
        return {
            "old uploads": self._uploads.forget_old,
            "old jobs": self._remove_jobs,
            "old files": self._remove_artifacts,
            "folders of removed jobs": self._clear_folders,
            "bytes that nobody names": self._collect,
        }

    def _remove_jobs(self) -> None:
        if self._settings.job_retention is not None:
            removed = self._removal.remove_old_jobs(_ago(self._settings.job_retention))
            _tell("jobs were removed: they ended longer ago than job_retention", removed)

    def _remove_artifacts(self) -> None:
        if self._settings.artifact_retention is not None:
            removed = self._removal.remove_old_artifacts(_ago(self._settings.artifact_retention))
            _tell("files were removed: nobody sent or used them within artifact_retention", removed)

    def _clear_folders(self) -> None:
        _tell("folders of jobs that are no more were cleared away", self._removal.clear_folders())

    def _collect(self) -> None:
        self._meter.store_freed(self._collector.collect().size_bytes)


def _ago(seconds: float) -> datetime:
    return now() - timedelta(seconds=seconds)


def _tell(what: str, count: int) -> None:
    if count:
        _LOG.info("%d %s", count, what)
