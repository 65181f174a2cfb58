"""A server elsewhere: whether it answers, is ready, and has the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from service.doctor.finding import Finding, Level, needing
from service.watching.clock import TIME_HEADER

if TYPE_CHECKING:
    import grpc

    from service.client.channel import Access

_SECONDS: Final = 10.0
_FAR_APART: Final = 5.0


def look_at_server(address: str, show: Callable[[], Access]) -> Iterator[Finding]:
    """Yields what a server says.

    Args:
        address: `HOST:PORT`.
        show: Returns what to show it; called once the packages for that are known to be there.
    """
    with needing("server", address, Level.WARN, "server"):
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        from service.client.channel import SERVICE, open_channel
    with open_channel(address, show()) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        began = time.monotonic()
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_SECONDS)
        except grpc.RpcError as exc:
            found = f"no answer: {exc.code().name}"
            advice = "start it with `shoal serve`, or check the address"
            yield Finding("server", address, Level.FAIL, found, advice=advice)
            return
        took = time.monotonic() - began
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            yield Finding("server", address, Level.OK, f"ready, answered in {took * 1e3:.0f} ms")
        else:
            meaning = "its database, its store or its disk cannot be written, or it is stopping"
            advice = "look at its log, or run `shoal doctor` there"
            yield Finding("server", address, Level.FAIL, "not ready", meaning, advice)
        yield _clock(channel)


def _clock(channel: grpc.Channel) -> Finding:
    import grpc

    from protos.shoal.v1 import model_optimizer_pb2 as pb
    from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub

    before = time.time()
    try:
        request = pb.ListOptimizationJobsRequest(page_size=1)
        _, call = ModelOptimizerStub(channel).ListOptimizationJobs.with_call(request, timeout=_SECONDS)
    except grpc.RpcError as exc:
        found = f"the server does not tell its time: {exc.code().name}"
        return Finding("clock", "system", Level.WARN, found)
    after = time.time()
    told = dict(call.trailing_metadata() or ()).get(TIME_HEADER)
    if told is None:
        return Finding("clock", "system", Level.WARN, "the server does not tell its time; it is older than this Shoal")
    return compare_clocks(float(told), before, after)


def compare_clocks(told: float, before: float, after: float) -> Finding:
    """Returns whether a server's clock agrees with this machine's.

    Args:
        told: The server's time, seconds since 1970.
        before: This machine's, before it was asked.
        after: This machine's, after it had answered.
    """
    apart, doubt = abs(told - (before + after) / 2), (after - before) / 2
    found = f"{apart:.1f} s apart from the server's, give or take {doubt:.1f} s"
    if apart - doubt <= _FAR_APART:
        return Finding("clock", "system", Level.OK, found)
    meaning = "times in jobs, logs and traces cannot be compared, and certificates may be refused"
    return Finding("clock", "system", Level.WARN, found, meaning, "synchronise both clocks, e.g. with NTP")
