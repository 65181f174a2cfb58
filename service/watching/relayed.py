"""Spans that come from a worker over its line, believed as far as they can be checked."""

from __future__ import annotations

from typing import Final, final

from service.watching.place import Place, parse
from service.watching.spans import FinishedSpan, hand_in
from service.worker.messages import SpanEvent

MOST: Final = 2000
"""What one worker may hand in; a job has some ten phases and as many questions to its device as it has operators."""


@final
class SpanRelay:
    """Hands on the spans of one worker: those of its own trace, and not without end."""

    def __init__(self, traceparent: str) -> None:
        """Takes spans of the trace that the worker's order names."""
        self._own = parse(traceparent)
        self._count = 0

    def take(self, event: SpanEvent) -> None:
        """Hands a span on, or drops it."""
        self._count += 1
        if self._own is None or event.trace_id != self._own.trace_id or self._count > MOST:
            return
        place = Place(event.trace_id, event.span_id, self._own.sampled)
        span = FinishedSpan(
            event.name,
            place,
            event.parent_id,
            "internal",
            event.start_ns,
            max(event.start_ns, event.end_ns),
            event.attributes,
            event.error,
        )
        hand_in(span)
