"""What a server does because it may not be the only one over its database.

It renews the leases of the jobs that it runs, puts jobs back whose server died, and looks for what others did: to jobs
that are watched here, to jobs that run here, to the queue. One server alone does it too: what it finds is less.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import to_thread
from collections.abc import Awaitable, Callable
from typing import Final, final

from service.errors import DatabaseBusyError, DiskFullError
from service.jobs.leases import Renewal
from service.jobs.store import JobStore
from service.server.hub import Hub
from service.settings import ServerSettings
from service.supervision.supervisor import Supervisor
from service.waiting import set_within

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 1.0
_RENEWALS: Final = 3
"""How often a lease is renewed in its time: two may fail."""


@final
class Lookout:
    """Belongs to one event loop. Looks at nothing before `start`."""

    def __init__(self, settings: ServerSettings, jobs: JobStore, supervisor: Supervisor, hub: Hub) -> None:
        """Looks on behalf of a supervisor and of those who watch jobs."""
        self._settings, self._jobs, self._supervisor, self._hub = settings, jobs, supervisor, hub
        self._seen: dict[str, int] = {}
        self._safe_until = 0.0
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts to look."""
        pause = self._settings.job_lease_seconds / _RENEWALS
        self._tasks = [
            asyncio.create_task(self._keep(pause)),
            asyncio.create_task(self._again_and_again(self._take_back, pause)),
            asyncio.create_task(self._again_and_again(self._look, self._settings.job_look_seconds)),
        ]

    async def stop(self) -> None:
        """Looks no more. To be called once nothing runs here: leases are renewed to the last."""
        self._stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, pause: float) -> None:
        """Renews leases; gives up what runs here when it may run elsewhere."""
        while not self._stopping.is_set():
            # Counted from before the call: what the database counts from is later.
            began = time.monotonic()
            held = self._supervisor.held()
            if not held or await self._renew(held):
                self._safe_until = began + self._settings.job_lease_seconds
                await self._pause(pause)
            else:
                await self._pause(min(_RETRY_SECONDS, pause))

    async def _renew(self, held: dict[str, int]) -> bool:
        """Renews leases, and stops their jobs once they are over; returns whether it could."""
        renewing = asyncio.create_task(to_thread(self._jobs.renew, held))
        # A server that stalled may still have its jobs: it asks before it gives them up.
        left = max(_RETRY_SECONDS, self._safe_until - time.monotonic())
        done, _ = await asyncio.wait({renewing}, timeout=left)
        if not done:
            self._give_up(held)
        try:
            self._heed(await renewing, held)
        except (DatabaseBusyError, DiskFullError) as exc:
            _LOG.warning("cannot renew the leases of %d jobs, trying again: %s", len(held), exc)
        except Exception:  # noqa: BLE001 (the leases must be looked after whatever happens)
            _LOG.exception("cannot renew the leases of %d jobs, trying again", len(held))
        else:
            return True
        if time.monotonic() >= self._safe_until:
            self._give_up(held)
        return False

    def _give_up(self, held: dict[str, int]) -> None:
        # Nobody else can have taken jobs out of a database that lies in this server's own folder.
        if self._settings.database_url is None:
            return
        _LOG.error("the leases of %d jobs are over and cannot be renewed; their workers are stopped", len(held))
        for job_id in held:
            self._supervisor.stop_job(job_id)

    async def _take_back(self) -> None:
        await self._supervisor.take_back()

    async def _look(self) -> None:
        watched, held = self._hub.watched(), self._supervisor.held()
        found = await to_thread(self._jobs.glance, watched, held)
        for job_id, sequence in found.sequences.items():
            if self._seen.get(job_id) != sequence:
                self._hub.publish(job_id)
        self._seen = dict(found.sequences)
        if found.waiting:
            self._supervisor.wake()
        self._heed(found.held, held)

    def _heed(self, renewal: Renewal, held: dict[str, int]) -> None:
        for job_id in renewal.cancelling:
            self._supervisor.stop_job(job_id)
        for job_id in renewal.lost:
            self._supervisor.lose(job_id, held[job_id])

    async def _again_and_again(self, call: Callable[[], Awaitable[None]], pause: float) -> None:
        while not await self._pause(pause):
            try:
                await call()
            except (DatabaseBusyError, DiskFullError) as exc:
                _LOG.warning("cannot look at the database, trying again: %s", exc)
            except Exception:  # noqa: BLE001 (the next look may do better)
                _LOG.exception("cannot look at the database, trying again")

    async def _pause(self, seconds: float) -> bool:
        """Waits; returns whether it is over."""
        return await set_within(self._stopping, seconds)
