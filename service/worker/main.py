"""The main program of a worker process: one work order from stdin, events to stdout, everything else to stderr."""

from __future__ import annotations

import ctypes
import json
import logging
import math
import os
import secrets
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, final

from service.faults import UNEXPECTED, classify
from service.watching import logs, spans, surroundings
from service.watching.place import parse
from service.worker.confinement import confine_worker
from service.worker.fetching import fetch_published
from service.worker.messages import DeviceEvent, ErrorEvent, Event, ProgressEvent, ResultEvent, SpanEvent, WorkOrder

_LOG = logging.getLogger("service.worker")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MAX_MESSAGE = 2000


@final
class Channel:
    """The line back to the server. May be used from any thread."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Writes to a stream that nobody else writes to."""
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, event: Event) -> None:
        """Writes one event."""
        line = event.model_dump_json().encode() + b"\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()

    def progress(self, phase: str, fraction: float, message: str, metrics: Mapping[str, float]) -> None:
        """Reports how far the work is; this is the callback that the pipeline gets."""
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        share = min(max(fraction, 0.0), 1.0)
        self.send(ProgressEvent(phase=phase, fraction=share, message=message[:_MAX_MESSAGE], metrics=finite))

    def ask_device(self, key: str) -> None:
        """Says that a question for a device lies in the folder."""
        self.send(DeviceEvent(key=key))

    def hand_in(self, span: spans.FinishedSpan) -> None:
        """Hands a span to the server, which exports it."""
        # Who only watches does no harm: if nobody listens, the next real event tells.
        with suppress(BrokenPipeError):
            self.send(to_span_event(span))


def to_span_event(span: spans.FinishedSpan) -> SpanEvent:
    """Returns a span as it is handed to the server."""
    return SpanEvent(
        name=span.name,
        trace_id=span.place.trace_id,
        span_id=span.place.span_id,
        parent_id=span.parent_id,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        attributes=dict(span.attributes),
        error=span.error,
    )


def main() -> int:
    """Does what the order on stdin says.

    Returns:
        The exit status: 0 after a result, 1 after an error.
    """
    channel = _take_stdout()
    die_with_parent()
    gather_orphans()
    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    order = WorkOrder.model_validate_json(line)
    if order.server_pid is not None and os.getppid() != order.server_pid:
        return 1
    watch(order, channel)
    try:
        fetch_published(order)
        _LOG.info("%s", confine_worker(order).summary)
        channel.send(ResultEvent(file=_do(order, channel)))
    except BrokenPipeError:
        return 1
    except Exception as exc:  # noqa: BLE001 (the boundary: everything becomes an event)
        channel.send(without_paths(to_event(exc), order))
        return 1
    return 0


def gather_orphans() -> None:
    """Has processes that lose their parent become this one's children, so that its server still finds them."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def watch(order: WorkOrder, channel: Channel) -> None:
    """Has everything that is logged from now on, and every span, say what it belongs to."""
    logs.configure(order.log_format)
    surroundings.settle(job=order.job)
    spans.set_origin(parse(order.traceparent))
    spans.set_sink(channel.hand_in)


def _do(order: WorkOrder, channel: Channel) -> str:

    order.out.mkdir(parents=True, exist_ok=True)
    if order.task == "analyze":
        from service.pipeline import dryrun

        analysis = dryrun.analyze(order, channel.progress, channel.ask_device)
        (order.out / "analysis.json").write_text(analysis.model_dump_json())
        return "out/analysis.json"
    from service.pipeline import pipeline

    pipeline.optimize(order, channel.progress, channel.ask_device)
    return "out/report.json"


def to_event(error: Exception) -> ErrorEvent:
    """Returns what the server is told about an exception; one that nobody foresaw goes to the log, under an id."""
    fault = classify(error)
    if fault is not UNEXPECTED:
        _LOG.info("%s", json.dumps({"reason": fault.reason, "message": str(error)}), exc_info=error)
        return ErrorEvent(reason=fault.reason, message=str(error)[:_MAX_MESSAGE], blame=fault.blame)
    error_id = secrets.token_hex(8)
    _LOG.error("unexpected error %s", error_id, exc_info=error)
    message = f"unexpected {type(error).__name__} ({error_id}); the job's log on the server says more under this id"
    return ErrorEvent(reason=fault.reason, message=message, blame=fault.blame)


def without_paths(event: ErrorEvent, order: WorkOrder) -> ErrorEvent:
    """Returns the event with this machine's paths taken out: the caller sees the names that he gave."""
    message = event.message
    for name, path in order.files.items():
        message = message.replace(str(path), name)
    return event.model_copy(update={"message": message.replace(f"{order.folder}/", "")})


def _take_stdout() -> Channel:
    """Keeps the real stdout for events; whatever prints from now on prints to stderr."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return Channel(stream)


def die_with_parent() -> None:
    """Has the system end this process when the one that started it is gone, however that ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
