"""Waiting for database and storage, where work must neither be lost nor fail because one is away for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from service.errors import DatabaseBusyError, DiskFullError, StorageUnavailableError

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0

PASSING: Final = (DiskFullError, DatabaseBusyError, StorageUnavailableError)
"""What may be over in a moment or an hour: whoever can wait tries again."""

_T = TypeVar("_T")


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Waits until an event is set, for so many seconds at most; returns whether it is.

    Who is cancelled while he waits ends: `asyncio.wait_for` forgets that, up to Python 3.11, where the event is set in
    the same moment.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def until_there(
    call: Callable[[], _T], stop: asyncio.Event | None = None, tell: Callable[[str], None] = lambda _message: None
) -> _T:
    """Calls again and again until database and storage answer and have room.

    Args:
        call: Blocks, and is called in a thread. What it has done already must not harm when it is called again.
        stop: Set when nobody wants it any more; None where somebody cancels the task instead.
        tell: Told, once, what is being waited for.

    Raises:
        DiskFullError: There was no room before `stop` was set.
        DatabaseBusyError: The database did not answer before.
        StorageUnavailableError: The storage did not.
    """
    pause, stop = _FIRST_PAUSE, stop or asyncio.Event()
    while True:
        try:
            return await asyncio.to_thread(call)
        except PASSING as exc:
            if stop.is_set():
                raise
            _LOG.warning("next try in %g s: %s", pause, exc)
            if pause == _FIRST_PAUSE:
                tell(_told(exc))
            await set_within(stop, pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _told(error: Exception) -> str:
    if isinstance(error, DiskFullError):
        return "waiting for room on the server's disk"
    what = "storage" if isinstance(error, StorageUnavailableError) else "database"
    return f"waiting for the server's {what}, which does not answer"
