"""Gives up on a stream that has gone quiet without ending.

Keepalive finds dead peers and cut cables. This finds the rest: a server that hangs, and calls that gRPC itself loses
when a server is replaced (seen with grpcio 1.76: the channel is ready again, and the call never ends).
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self, final

if TYPE_CHECKING:
    from types import TracebackType

    import grpc


@final
class SilenceGuard:
    """Cancels a call that makes no progress for too long, and in any case when the guard ends. A context manager."""

    def __init__(self, call: grpc.RpcContext, seconds: float) -> None:
        """Prepares; the clock starts on entering.

        Args:
            call: The call to cancel.
            seconds: Longest silence.
        """
        self._call = call
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="silence guard", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._call.cancel()  # no effect on a call that has ended

    def heard(self, seconds: float | None = None) -> None:
        """Says that the call made progress.

        Args:
            seconds: Longest silence from now on. Default: as before.
        """
        self._seconds = self._seconds if seconds is None else seconds
        self._deadline = time.monotonic() + self._seconds

    def _watch(self) -> None:
        while (left := self._deadline - time.monotonic()) > 0:
            if self._ended.wait(left):
                return
        self._call.cancel()
