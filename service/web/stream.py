"""A job's progress as server-sent events.

A message has the event's number as its id, so that a browser that lost the connection says where it was. Every message
shows the job whole as it is then, with the lines of the log that came since the browser's number.

    message   {"live": HTML, "lines": HTML, "title": text}
    beat      the same without an id: nothing new, but the clocks go on
    end       the job is over, and the page has more to show
"""

from __future__ import annotations

import asyncio
import json
import time
from asyncio import to_thread
from collections.abc import AsyncIterator
from typing import Final, final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.errors import ForbiddenError, InvalidRequestError, QuotaError, UnauthenticatedError, Violation
from service.jobs.job import Job
from service.server.servicer import Parts
from service.waiting import set_within
from service.web.drawing import draw
from service.web.figures import numbers
from service.web.stories import Stories, Story
from service.web.summaries import summarise
from service.web.visitors import Visitors

_MOST_STREAMS: Final = 500
_MOST_DRAWN: Final = 16
_SHORTEST_PAUSE: Final = 0.25
_LONGEST_NUMBER: Final = 18
_RETRY: Final = "retry: 2000\n\n"


@final
class Streams:
    """Streams of one server. Belongs to one event loop."""

    def __init__(self, parts: Parts, visitors: Visitors, stories: Stories) -> None:
        """Serves from the parts of a server."""
        self._parts, self._visitors, self._stories = parts, visitors, stories
        self._open = 0

    async def events(self, request: Request) -> Response:
        """Answers with the events of a job, until it is over, the server stops, or the browser goes."""
        visitor = await self._visitors.admit(request)
        after = _read_place(request)
        job = await to_thread(self._parts.jobs.get, request.path_params["job"], visitor.sees)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        if self._open >= _MOST_STREAMS:
            raise QuotaError("streams", f"{self._open} pages are being kept up to date already", 10.0)
        return StreamingResponse(
            self._counted(request, job, after),
            media_type="text/event-stream",
            # Proxies that keep answers back until they are whole are told not to.
            headers={"x-accel-buffering": "no"},
        )

    async def _counted(self, request: Request, job: Job, after: int) -> AsyncIterator[str]:
        self._open += 1
        try:
            async for message in self._messages(request, job, after):
                yield message
        finally:
            self._open -= 1

    async def _messages(self, request: Request, job: Job, after: int) -> AsyncIterator[str]:
        hub = self._parts.hub
        yield _RETRY
        with hub.subscribe(job.id) as changed:
            while not hub.closed:
                changed.clear()
                story = await self._stories.of(job)
                if story.sequence > after:
                    yield _message(story, after)
                    after = story.sequence
                if story.over:
                    yield "event: end\ndata: \n\n"
                    return
                if not await self._news(changed):
                    if not await self._still_may(request):
                        return
                    yield _message(story, after, "beat")

    async def _news(self, changed: asyncio.Event) -> bool:
        """Waits for news; False if there is none for as long as a stream may be silent."""
        if not await set_within(changed, self._parts.settings.heartbeat_seconds):
            return False
        if not self._parts.hub.closed:
            await asyncio.sleep(_SHORTEST_PAUSE)
        return True

    async def _still_may(self, request: Request) -> bool:
        """Returns whether who watches still has a token."""
        try:
            await self._visitors.recognise(request)
        except (UnauthenticatedError, ForbiddenError):
            return False
        return True


def show_live(story: Story) -> str:
    """Returns the part of a job's page that changes while it runs."""
    metrics = story.phases.metrics or {}
    return draw(
        "live.html.j2",
        summary=summarise(story.job, lambda name: name),
        phases=story.phases,
        numbers=numbers(metrics, story.curves),
    )


def show_lines(story: Story, after: int) -> str:
    """Returns the lines of the log that came after an event, the newest first."""
    lines = [line for line in reversed(story.lines) if line.sequence > after]
    return draw("lines.html.j2", lines=lines)


def title_of(story: Story) -> str:
    """Returns what the browser's tab says of a job."""
    summary = summarise(story.job, lambda name: name)
    share = f"{story.phases.fraction:.0%} " if summary.lively else ""
    return f"{share}{summary.word}: {summary.title}"


def _message(story: Story, after: int, event: str | None = None) -> str:
    """Returns a message; those who watch together get the same one, drawn once."""
    key = (after, event, int(time.monotonic()))
    if key not in story.drawn:
        while len(story.drawn) >= _MOST_DRAWN:
            del story.drawn[next(iter(story.drawn))]
        story.drawn[key] = _draw_message(story, after, event)
    return story.drawn[key]


def _draw_message(story: Story, after: int, event: str | None) -> str:
    body = json.dumps({"live": show_live(story), "lines": show_lines(story, after), "title": title_of(story)})
    head = f"id: {story.sequence}" if event is None else f"event: {event}"
    return f"{head}\ndata: {body}\n\n"


def _read_place(request: Request) -> int:
    """Returns the number of the last event that the browser has."""
    text = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        raise InvalidRequestError([Violation("after", "must be the number of an event")])
    return int(text)
