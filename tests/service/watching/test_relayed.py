from __future__ import annotations

from service.watching.relayed import MOST, SpanRelay
from service.watching.spans import FinishedSpan
from service.worker.messages import SpanEvent

OWN = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def event(**changes: object) -> SpanEvent:
    fields = {
        "name": "plan",
        "trace_id": "a" * 32,
        "span_id": "c" * 16,
        "parent_id": "b" * 16,
        "start_ns": 1000,
        "end_ns": 2000,
    }
    return SpanEvent.model_validate({**fields, **changes})


def test_a_worker_s_span_is_handed_on(finished: list[FinishedSpan]) -> None:
    SpanRelay(OWN).take(event(attributes={"shoal.layers": 3}))

    (span,) = finished
    assert (span.name, span.place.trace_id, span.parent_id) == ("plan", "a" * 32, "b" * 16)
    assert (span.start_ns, span.end_ns, span.attributes) == (1000, 2000, {"shoal.layers": 3})


def test_a_worker_cannot_write_into_another_trace(finished: list[FinishedSpan]) -> None:
    SpanRelay(OWN).take(event(trace_id="d" * 32))

    assert not finished


def test_a_worker_cannot_write_without_end(finished: list[FinishedSpan]) -> None:
    relay = SpanRelay(OWN)
    for _ in range(MOST + 10):
        relay.take(event())

    assert len(finished) == MOST


def test_a_span_never_ends_before_it_began(finished: list[FinishedSpan]) -> None:
    SpanRelay(OWN).take(event(start_ns=2000, end_ns=1000))

    assert (finished[0].start_ns, finished[0].end_ns) == (2000, 2000)
