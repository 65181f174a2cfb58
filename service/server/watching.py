"""Sees every call: makes a span of it, counts it and its bytes, and says in the logs what it belongs to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import grpc

from service.watching.clock import TIME_HEADER
from service.watching.meter import Call, Meter
from service.watching.place import parse
from service.watching.spans import OpenSpan, spanning

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    # Generic in the stubs only.
    Handler = grpc.RpcMethodHandler[Any, Any]

_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
_CONTINUED_ONLY: Final = frozenset({"LeaseWork", "RegisterDevice", "RenewLease"})
"""What agents call all day long: a span only where the caller has one."""


@dataclass
class _Seen:
    """What is known of a call under way."""

    method: str
    received: int = 0
    sent: int = 0
    error: BaseException | None = None


@final
class WatchingInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of some services; to be the outermost, so that it sees what the others made of a call."""

    def __init__(self, meter: Meter, *services: str) -> None:
        """Wraps the methods of services, by their full names."""
        self._meter = meter
        self._prefixes = tuple(f"/{service}/" for service in services)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler, wrapped."""
        handler = await continuation(handler_call_details)
        # Of what nobody handles not even the name is counted: names would come from outside.
        if handler is None or not handler_call_details.method.startswith(self._prefixes):
            return handler
        return self._wrapped(handler, handler_call_details.method.lstrip("/"))

    def _wrapped(self, handler: Handler, method: str) -> Handler:
        make: Any
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                make, behavior = grpc.unary_unary_rpc_method_handler, self._single(handler.unary_unary, method)
            case True, False:
                make, behavior = grpc.stream_unary_rpc_method_handler, self._single(handler.stream_unary, method)
            case False, True:
                make, behavior = grpc.unary_stream_rpc_method_handler, self._stream(handler.unary_stream, method)
            case _:
                make, behavior = grpc.stream_stream_rpc_method_handler, self._stream(handler.stream_stream, method)
        wrapped: Handler = make(
            behavior,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return wrapped

    def _single(self, behavior: Any, method: str) -> Any:
        async def call(request: Any, context: Context) -> Any:
            seen = _Seen(method)
            with self._watched(seen, context):
                context.set_trailing_metadata(((TIME_HEADER, f"{time.time():.3f}"),))
                response = await behavior(_counted(request, seen), context)
                seen.sent += response.ByteSize()
                return response

        return call

    def _stream(self, behavior: Any, method: str) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            seen = _Seen(method)
            with self._watched(seen, context):
                async for response in behavior(_counted(request, seen), context):
                    seen.sent += response.ByteSize()
                    yield response

        return call

    @contextmanager
    def _watched(self, seen: _Seen, context: Context) -> Iterator[None]:
        began = time.monotonic()
        with _span(seen.method, context) as span:
            try:
                yield
            except BaseException as exc:
                seen.error = exc
                raise
            finally:
                code = _code(seen.error, context)
                span.attributes["rpc.grpc.status"] = code
                span.error = "" if code == "OK" else code
                self._meter.call_ended(Call(seen.method, code, time.monotonic() - began, seen.received, seen.sent))


@contextmanager
def _span(method: str, context: Context) -> Iterator[OpenSpan]:
    found = dict(context.invocation_metadata() or ()).get("traceparent", "")
    parent = parse(found) if isinstance(found, str) else None
    service, _, name = method.rpartition("/")
    if parent is None and name in _CONTINUED_ONLY:
        yield OpenSpan(method, None, "server", {})
        return
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
    with spanning(method, parent, "server", attributes) as span:
        yield span


def _counted(request: Any, seen: _Seen) -> Any:
    """Returns a request, or a stream of them, whose bytes are counted as they come."""
    if not isinstance(request, AsyncIterator):
        seen.received += request.ByteSize()
        return request

    async def stream() -> AsyncIterator[Any]:
        async for message in request:
            seen.received += message.ByteSize()
            yield message

    return stream()


def _code(error: BaseException | None, context: Context) -> str:
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "CANCELLED"
    found: Any = context.code()
    if isinstance(found, grpc.StatusCode):
        return found.name
    if found is None or found == 0:
        return "OK" if error is None else "UNKNOWN"
    return _NAMES.get(found, "UNKNOWN")
