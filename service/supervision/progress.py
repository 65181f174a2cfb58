"""From a worker's stream of reports to a bounded number of stored ones."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import final

from service.jobs.job import Progress
from service.waiting import PASSING, set_within
from service.worker.messages import ProgressEvent

_LOG = logging.getLogger(__name__)
_MAX_PENDING = 64
_KNOWN_FRACTION = 0.02  # below this, elapsed time says nothing about the rest


@final
class ProgressWriter:
    """Stores a job's progress: the latest of each phase at once, the rest no faster than an interval that grows.

    The interval is at least a thousandth of the time elapsed: even a job of a week has only some thousand events.
    """

    def __init__(self, record: Callable[[Progress], None], interval: float) -> None:
        """Starts counting time.

        Args:
            record: Stores one report; blocks, and is called in a thread.
            interval: Shortest time between two stored reports, seconds.
        """
        self._record = record
        self._interval = interval
        self._started = time.monotonic()
        self._last: ProgressEvent | None = None
        self._pending: deque[Progress] = deque(maxlen=_MAX_PENDING)
        self._ready = asyncio.Event()
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._write())

    def offer(self, event: ProgressEvent) -> None:
        """Takes one report; it replaces an unstored one of the same phase."""
        self._last = event
        self._take(event)

    def _take(self, event: ProgressEvent) -> None:
        progress = to_progress(event, time.monotonic() - self._started)
        if self._pending and self._pending[-1].phase == progress.phase:
            self._pending.pop()
        self._pending.append(progress)
        self._ready.set()

    def remark(self, message: str) -> None:
        """Reports what the work waits for, as far as it had come."""
        last = self._last or ProgressEvent(phase="load", fraction=0.0)
        self._take(last.model_copy(update={"message": message}))

    async def close(self) -> None:
        """Stores what is left."""
        self._closing.set()
        self._ready.set()
        await self._task

    async def _write(self) -> None:
        while not (self._closing.is_set() and not self._pending):
            await self._ready.wait()
            self._ready.clear()
            # What comes while these are stored waits for its turn, or a slow database would thin nothing out.
            for _ in range(len(self._pending)):
                await self._store(self._pending.popleft())
            if not self._closing.is_set():
                await set_within(self._closing, max(self._interval, (time.monotonic() - self._started) / 1000))

    async def _store(self, progress: Progress) -> None:
        try:
            await asyncio.to_thread(self._record, progress)
        except PASSING as exc:
            # A lost report is better than a lost job.
            _LOG.warning("progress not stored: %s", exc)


def to_progress(event: ProgressEvent, elapsed: float) -> Progress:
    """Returns a report as it is stored, with an estimate of the time left.

    Args:
        event: What the worker said. Its metric `seconds_left`, if any, is the estimate.
        elapsed: Seconds since the worker started.
    """
    metrics = {name: value for name, value in event.metrics.items() if math.isfinite(value)}
    left = metrics.pop("seconds_left", None)
    if left is None and event.fraction >= _KNOWN_FRACTION:
        left = elapsed * (1 - event.fraction) / event.fraction
    time_left = None if left is None else timedelta(seconds=min(max(left, 0.0), 1e8))
    return Progress(
        phase=event.phase, fraction=event.fraction, message=event.message, metrics=metrics, time_left=time_left
    )
