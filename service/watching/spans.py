"""Spans: what was done from when to when, as part of what.

Every process numbers its spans, so that logs can be put together; they are exported only where a sink was set
(`service.watching.export`, or a worker's line to its server). Needs nothing but the standard library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, final

from service.watching.place import Place, new_span_id, new_trace_id

Kind = Literal["internal", "server", "client"]
Value = str | int | float | bool


@dataclass(frozen=True)
class FinishedSpan:
    """One span, whole.

    Attributes:
        name: What was done; one of few.
        place: Its own.
        parent_id: Span id of what it is a part of; empty for a trace's first.
        kind: `server` for a call that was answered.
        start_ns: Nanoseconds since 1970.
        end_ns: Nanoseconds since 1970.
        attributes: What it was about.
        error: Why it failed, empty where it did not.
    """

    name: str
    place: Place
    parent_id: str
    kind: Kind
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""


Sink = Callable[[FinishedSpan], None]
"""Takes sampled spans; may be called from any thread, must not block, must not raise."""

Sampler = Callable[[str, str], bool]
"""Says by trace id and name whether a trace that begins here is exported."""


@dataclass
class _Process:
    """What holds for the whole process."""

    place: Place | None = None
    sink: Sink | None = None
    sampler: Sampler | None = None


_process = _Process()
_current: ContextVar[Place | None] = ContextVar("place", default=None)


@final
class OpenSpan:
    """A span that has begun.

    Attributes:
        place: Its own.
        attributes: May be added to until it ends.
        error: To be set where it fails without an exception.
    """

    def __init__(self, name: str, parent: Place | None, kind: Kind, attributes: Mapping[str, Value]) -> None:
        self.place = parent.child() if parent is not None else new_root(name)
        self.attributes = dict(attributes)
        self.error = ""
        self._name, self._kind = name, kind
        self._parent_id = "" if parent is None else parent.span_id
        self._start = time.time_ns()
        self._began = time.monotonic_ns()

    def finish(self) -> None:
        """Ends it."""
        end = self._start + time.monotonic_ns() - self._began
        finished = FinishedSpan(
            self._name, self.place, self._parent_id, self._kind, self._start, end, self.attributes, self.error
        )
        hand_in(finished)


def set_sink(sink: Sink | None, sampler: Sampler | None = None) -> None:
    """Has all sampled spans of this process handed to a sink; None to none."""
    _process.sink, _process.sampler = sink, sampler


def set_origin(place: Place | None) -> None:
    """Has spans of this process that have no parent in it become children of a place elsewhere."""
    _process.place = place


def current() -> Place | None:
    """Returns the place of what is being done here; None where nothing is."""
    return _current.get() or _process.place


def new_root(name: str) -> Place:
    """Returns the place of a new trace's first span."""
    trace_id = new_trace_id()
    sampled = _process.sink is not None and (_process.sampler is None or _process.sampler(trace_id, name))
    return Place(trace_id, new_span_id(), sampled)


def hand_in(span: FinishedSpan) -> None:
    """Exports a span, if its trace is sampled and anybody wants it."""
    if span.place.sampled and _process.sink is not None:
        _process.sink(span)


@contextmanager
def standing_at(place: Place | None) -> Iterator[None]:
    """Makes what is done in a block a part of a span that others begin and end; None leaves it as it is."""
    token = _current.set(place or _current.get())
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def spanning(
    name: str,
    parent: Place | None = None,
    kind: Kind = "internal",
    attributes: Mapping[str, Value] | None = None,
) -> Iterator[OpenSpan]:
    """Makes a span of a block.

    Args:
        name: What is done; one of few.
        parent: What it is a part of; None for what is being done here.
        kind: `server` for a call that is answered.
        attributes: What it is about.
    """
    opened = OpenSpan(name, parent or current(), kind, attributes or {})
    token = _current.set(opened.place)
    try:
        yield opened
    except BaseException as exc:
        opened.error = opened.error or type(exc).__name__
        raise
    finally:
        # A generator that is closed by somebody else ends in another context, where there is nothing to take back.
        with suppress(ValueError):
            _current.reset(token)
        opened.finish()
