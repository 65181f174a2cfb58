"""Messages that are none: bytes that cannot be parsed are the caller's fault, and he is told so as of anything else.

Left to itself, the gRPC library answers them with UNKNOWN and the text of its own exception.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, final

from google.protobuf.message import DecodeError

from service.errors import InvalidRequestError, Violation


@final
class Unreadable:
    """Stands where a request would, had it been one."""

    def __init__(self, size: int) -> None:
        """Remembers how many bytes there were."""
        self._size = size

    def ByteSize(self) -> int:  # noqa: N802 (as messages call it)
        """Returns how many bytes came."""
        return self._size


def forgiving(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Returns a parser that gives an `Unreadable` for what the given one cannot parse."""
    if parse is None:
        return None

    def parse_or_mark(data: bytes) -> Any:
        try:
            return parse(data)
        except (DecodeError, UnicodeDecodeError):
            return Unreadable(len(data))

    return parse_or_mark


def readable(request: Any) -> Any:
    """Returns a request, or a stream of them, as it is.

    Raises:
        InvalidRequestError: It could not be parsed; of a stream, when it gets there.
    """
    if hasattr(request, "__aiter__"):
        return _readable(request)
    if isinstance(request, Unreadable):
        raise InvalidRequestError([Violation("request", "is no message of the type that this method takes")])
    return request


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield readable(request)
