"""Dry runs: a few at a time, each in a worker of its own, while its caller waits."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from typing import final

from service.access.principal import LOCAL_NAME
from service.devices.desk import Desk
from service.errors import DrainingError, QuotaError, TimeLimitError, WorkerError
from service.executors.base import Ears, Errand, Executor
from service.faults import TIME_LIMIT, WORKER_LOST
from service.settings import ServerSettings
from service.spec import JobSpec
from service.supervision.orders import dry_run_order, open_desk
from service.watching.jobs import JobWatch
from service.worker.failures import failure_of, has_died
from service.worker.messages import AnalysisResult

_RETRY_SECONDS = 10.0


@final
class DryRuns:
    """Runs workers for dry runs. Belongs to one event loop."""

    def __init__(
        self, settings: ServerSettings, executor: Executor, desk: Desk, watch: JobWatch, draining: asyncio.Event
    ) -> None:
        """Runs nothing yet; stops what runs once `draining` is set."""
        self._settings, self._executor, self._desk, self._watch = settings, executor, desk, watch
        self._draining = draining
        self.folder = settings.state_dir / "analyses"
        self._slots = asyncio.Semaphore(settings.analyses)
        self._waiting = 0

    async def analyze(self, spec: JobSpec, *, skip_floor: bool) -> AnalysisResult:
        """Runs a dry run in a worker; cancelling this call kills the worker.

        Raises:
            QuotaError: Too many wait already.
            WorkerError: The worker could not do it, or died.
            TimeLimitError: It took too long.
            DrainingError: The server is stopping.
        """
        if self._waiting >= self._settings.analysis_queue_limit + self._settings.analyses:
            raise QuotaError("dry runs", "too many dry runs wait already", _RETRY_SECONDS)
        self._waiting += 1
        try:
            async with self._slots:
                return await self._analyze(spec, skip_floor)
        finally:
            self._waiting -= 1

    async def _analyze(self, spec: JobSpec, skip_floor: bool) -> AnalysisResult:
        folder = self.folder / secrets.token_hex(8)
        try:
            with self._watch.dry_run(f"analyses/{folder.name}", spec.target.device) as attempt:
                order = dry_run_order(self._settings, folder, spec, skip_floor, attempt.traceparent)
                desk = open_desk(self._desk, order, lambda _message: None)
                ears = Ears(lambda _event: None, self._draining, desk)
                ended = await self._executor.run(Errand(order, LOCAL_NAME), ears)
                attempt.died = bool(ended.lost) or has_died(ended.exit)
            if ended.analysis is not None:
                return ended.analysis
            if ended.exit.stopped:
                raise DrainingError("the server is stopping; try again later")
            if ended.lost:
                raise WorkerError(WORKER_LOST.reason, ended.lost, WORKER_LOST.blame)
            failure = failure_of(ended.exit, self._settings.analysis_seconds)
            if failure.reason == TIME_LIMIT.reason:
                raise TimeLimitError(failure.message)
            raise WorkerError(failure.reason, failure.message, failure.blame)
        finally:
            await self._desk.drop(f"analyses/{folder.name}")
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
