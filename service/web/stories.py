"""How jobs came to be as they are, folded from their events.

Everybody who watches a job looks at the same story: however many they are, its new events are read once.
"""

from __future__ import annotations

import asyncio
import itertools
from asyncio import to_thread
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, final

from service.cli import progress as picture
from service.jobs.job import Event, Job, Progress
from service.jobs.states import State
from service.jobs.store import JobStore
from service.web import words
from service.web.curves import Curve

_EVENT_PAGE: Final = 500
_MOST_LINES: Final = 200
_PAUSE: Final = timedelta(seconds=5)
_MOST_STORIES: Final = 256


@dataclass(frozen=True)
class Line:
    """Something that is worth a line in the log.

    Attributes:
        sequence: Of the event.
        kind: Name of a phase, or `state`.
    """

    sequence: int
    time: datetime
    kind: str
    text: str


@final
class Story:
    """One job: as it is, its phases, its numbers over time, and what happened last."""

    def __init__(self, job: Job) -> None:
        """Begins before the first event.

        Args:
            job: The job at any time; what it says of itself later counts.
        """
        self.job = job
        self.sequence = 0
        self.phases = picture.begin(upload=False)
        self.curves: dict[str, Curve] = {}
        self.lines: list[Line] = []
        # Messages about it as it is now, by what they depend on.
        self.drawn: dict[tuple[object, ...], str] = {}

    @property
    def over(self) -> bool:
        """Whether nothing can happen any more that is not told here."""
        return self.job.finished and self.sequence >= self.job.last_sequence

    def tell(self, event: Event) -> None:
        """Takes up the next event."""
        self.sequence = event.sequence
        self.drawn.clear()
        if isinstance(event.body, Job):
            self._change_state(event, event.body)
        else:
            self._go_on(event, event.body)
        del self.lines[:-_MOST_LINES]

    def _change_state(self, event: Event, job: Job) -> None:
        self.job = job
        if job.finished:
            self.phases = picture.finish(self.phases, event.time, succeeded=job.state is State.SUCCEEDED)
        elif job.state is State.RUNNING:
            self.phases, self.curves = picture.begin(upload=False), {}
        again = f", attempt {job.attempts}" if job.state is State.RUNNING and job.attempts > 1 else ""
        why = "" if job.failure is None else f": {job.failure.message}"
        self.lines.append(Line(event.sequence, event.time, "state", f"{words.STATES[job.state]}{again}{why}"))

    def _go_on(self, event: Event, progress: Progress) -> None:
        left = None if progress.time_left is None else progress.time_left.total_seconds()
        known = {**(self.phases.metrics or {}), **progress.metrics}
        self.phases = picture.advance(
            self.phases,
            picture.Report(progress.phase, event.time, progress.message, progress.fraction, known, left),
        )
        self.job = self.job.model_copy(update={"progress": progress, "last_sequence": event.sequence})
        for name, value in progress.metrics.items():
            self.curves.setdefault(name, Curve()).add(value)
        last = self.lines[-1] if self.lines else None
        if (
            last is None
            or last.kind != progress.phase
            or (last.text != progress.message and event.time - last.time >= _PAUSE)
        ):
            self.lines.append(Line(event.sequence, event.time, progress.phase, progress.message))


@dataclass
class _Shelf:
    """A story, and when it was last brought up to date, as a count of questions."""

    story: Story
    read_at: int = 0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


@final
class Stories:
    """Stories of the jobs that somebody looked at lately. Belongs to one event loop."""

    def __init__(self, jobs: JobStore) -> None:
        """Reads from a store."""
        self._jobs = jobs
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()
        self._questions = itertools.count(1)

    async def of(self, job: Job) -> Story:
        """Returns the story of a job, with everything that was stored when this was asked."""
        shelf = self._shelves.setdefault(job.id, _Shelf(Story(job)))
        self._shelves.move_to_end(job.id)
        while len(self._shelves) > _MOST_STORIES:
            self._shelves.popitem(last=False)
        asked = next(self._questions)
        async with shelf.reading:
            # Who waited here while another began to read after they asked need not read again.
            if shelf.read_at < asked and not shelf.story.over:
                shelf.read_at = next(self._questions)
                await self._read(shelf.story)
        return shelf.story

    async def _read(self, story: Story) -> None:
        while True:
            events = await to_thread(self._jobs.events, story.job.id, story.sequence, _EVENT_PAGE)
            for event in events:
                story.tell(event)
            if len(events) < _EVENT_PAGE:
                return
