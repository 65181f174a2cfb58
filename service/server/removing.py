"""What the calls that remove something have in common."""

from __future__ import annotations

from asyncio import to_thread, wait_for
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from service.errors import NotFoundError
from service.jobs.store import JobStore
from service.server.access import caller
from service.server.hub import Hub
from service.supervision.supervisor import Supervisor

_LOOK_SECONDS = 2.0


@contextmanager
def missing_allowed(allowed: bool) -> Iterator[None]:
    """Lets it pass, where that is allowed, that there is nothing to remove."""
    try:
        yield
    except NotFoundError:
        if not allowed:
            raise


async def stop(jobs: JobStore, supervisor: Supervisor, hub: Hub, job_id: str) -> None:
    """Cancels a job of the caller's and waits for its end.

    Raises:
        NotFoundError: There is none, or it is another principal's.
    """
    with hub.subscribe(job_id) as changed:
        job = await supervisor.cancel(job_id, caller().sees)
        while not job.finished:
            # Looked at from time to time too: another server may have ended it.
            with suppress(TimeoutError):
                await wait_for(changed.wait(), _LOOK_SECONDS)
            changed.clear()
            job = await to_thread(jobs.get, job_id, caller().sees)
