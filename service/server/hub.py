"""Wakes those who watch a job when it changes. Says only that something changed; what, the store knows."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final


@final
class Hub:
    """Subscriptions by job id. Belongs to one event loop; only `publish` may be called from other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serves the tasks of one loop."""
        self._loop = loop
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.closed = False

    def publish(self, job_id: str) -> None:
        """Wakes everyone who watches this job. From any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, job_id)

    def watched(self) -> list[str]:
        """Returns the ids of the jobs that somebody watches."""
        return list(self._waiting)

    def close(self) -> None:
        """Wakes everyone, for good."""
        self.closed = True
        for job_id in list(self._waiting):
            self._wake(job_id)

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[asyncio.Event]:
        """Gives an event that is set after each change."""
        changed = asyncio.Event()
        self._waiting[job_id].add(changed)
        try:
            yield changed
        finally:
            self._waiting[job_id].discard(changed)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def _wake(self, job_id: str) -> None:
        for changed in self._waiting.get(job_id, ()):
            changed.set()
