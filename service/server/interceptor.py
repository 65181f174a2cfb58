"""Turns exceptions into statuses, in one place for all calls, and logs every call."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, final

import grpc
from google.rpc import status_pb2

from service.server.reading import forgiving, readable
from service.server.status import to_status

_LOG = logging.getLogger(__name__)
_DETAILS_KEY = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    # Generic in the stubs only.
    Handler = grpc.RpcMethodHandler[Any, Any]


@final
class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of our own services; health and reflection answer for themselves."""

    def __init__(self, *services: str) -> None:
        """Wraps the methods of services, by their full names."""
        self._prefixes = tuple(f"/{service}/" for service in services)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the handler, wrapped."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or not method.startswith(self._prefixes):
            return handler
        return _wrapped(handler, method.rpartition("/")[2])


def _wrapped(handler: Handler, method: str) -> Handler:
    return rewrap(handler, lambda behavior: _unary(behavior, method), lambda behavior: _streaming(behavior, method))


def rewrap(handler: Handler, unary: Callable[[Any], Any], streaming: Callable[[Any], Any]) -> Handler:
    """Returns a handler whose behaviour is what `unary` or `streaming` (by its answer) makes of the one it has."""
    make, behavior = _parts(handler)
    wrapped: Handler = make(
        streaming(behavior) if handler.response_streaming else unary(behavior),
        request_deserializer=forgiving(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )
    return wrapped


def _parts(handler: Handler) -> tuple[Any, Any]:
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler, handler.unary_unary
        case True, False:
            return grpc.stream_unary_rpc_method_handler, handler.stream_unary
        case False, True:
            return grpc.unary_stream_rpc_method_handler, handler.unary_stream
    return grpc.stream_stream_rpc_method_handler, handler.stream_stream


def _unary(behavior: Callable[[Any, Context], Awaitable[Any]], method: str) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        with _logged(method):
            try:
                return await behavior(readable(request), context)
            except Exception as exc:  # noqa: BLE001 (the boundary: everything becomes a status)
                await _abort(context, exc)

    return call


def _streaming(
    behavior: Callable[[Any, Context], AsyncIterator[Any]], method: str
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        with _logged(method):
            try:
                async for response in behavior(readable(request), context):
                    yield response
            except Exception as exc:  # noqa: BLE001 (the boundary: everything becomes a status)
                await _abort(context, exc)

    return call


async def _abort(context: Context, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    status: status_pb2.Status = to_status(error)
    _LOG.info("refused with %s: %s", _CODES[status.code].name, status.message)
    await context.abort(_CODES[status.code], status.message, ((_DETAILS_KEY, status.SerializeToString()),))
    raise AssertionError("abort always raises")


@contextmanager
def _logged(method: str) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        _LOG.debug("%s took %.3f s", method, time.monotonic() - started)
