"""Workers on the server's own machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

from service.executors.base import Ears, Ended, Errand, Executor
from service.executors.perform import Site, perform
from service.jobs.admission import local_files, own_devices
from service.resuming.checkpoints import Checkpoints
from service.settings import ServerSettings
from service.storage.artifacts import ArtifactStore
from service.worker.messages import WorkOrder


@final
class LocalExecutor(Executor):
    """Runs workers beside the server."""

    def __init__(self, settings: ServerSettings, artifacts: ArtifactStore) -> None:
        """Runs nothing yet."""
        self._roots = settings.data_roots
        self._artifacts = artifacts
        checkpoints = Checkpoints(artifacts.storage) if settings.mirrors_checkpoints else None
        self._site = Site(settings, artifacts, self._bring, checkpoints)

    async def start(self) -> None:
        """Needs nothing."""

    def close(self) -> None:
        """Took nothing."""

    async def run(self, errand: Errand, ears: Ears) -> Ended:
        """Runs a worker in the order's folder; see `Executor.run`."""
        return await perform(errand, self._site, ears)

    def devices(self) -> Sequence[str] | None:
        """Returns the server's own."""
        return own_devices()

    def forget(self, job_id: str) -> None:
        """Drops a job's checkpoints from the storage."""
        if self._site.checkpoints is not None:
            self._site.checkpoints.drop(job_id)

    def _bring(self, order: WorkOrder, folder: Path) -> dict[str, Path]:
        return local_files(order.spec, self._artifacts, self._roots, folder)
