"""Reads the news of a job once for all who watch it.

When a job changes, all its watchers wake at the same moment, and most of them have seen the same events. The first to
ask has them read; who asks the same meanwhile waits for that answer.
"""

from __future__ import annotations

import asyncio
from asyncio import to_thread
from dataclasses import dataclass
from typing import Final, final

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from service import convert
from service.jobs.store import JobStore

PAGE: Final = 200
"""Events that are read at once."""


@dataclass(frozen=True)
class News:
    """One event as it is sent; `last` where none follows."""

    sequence: int
    last: bool
    message: service_pb.JobEvent


@final
class Tail:
    """Belongs to one event loop."""

    def __init__(self, jobs: JobStore) -> None:
        """Reads nothing yet."""
        self._jobs = jobs
        self._reading: dict[tuple[str, int], asyncio.Task[list[News]]] = {}

    async def after(self, job_id: str, sequence: int) -> list[News]:
        """Returns up to `PAGE` events with a number over `sequence`, in order; what is committed when it is called."""
        key = (job_id, sequence)
        if (begun := self._reading.get(key)) is not None:
            # It may have begun before that was committed, and found nothing.
            await asyncio.wait({begun})
            if not begun.cancelled() and begun.exception() is None and begun.result():
                return begun.result()
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.create_task(to_thread(self._read, job_id, sequence))
            reading.add_done_callback(lambda _done: self._reading.pop(key, None))
        # Whoever leaves, leaves the others their answer.
        return await asyncio.shield(reading)

    def _read(self, job_id: str, sequence: int) -> list[News]:
        events = self._jobs.events(job_id, sequence, PAGE)
        return [News(event.sequence, event.last, convert.write_event(event)) for event in events]
