"""Waiting for database and storage, where work must neither be lost nor fail because one is away for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from service.errors import DatabaseBusyError, StorageUnavailableError

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0

AWAY: Final = (DatabaseBusyError, StorageUnavailableError)
"""What is raised by what may well answer later."""

_T = TypeVar("_T")


async def until_there(
    call: Callable[[], _T], stop: asyncio.Event | None = None, tell: Callable[[str], None] = lambda _message: None
) -> _T:
    """Calls again and again until database and storage answer.

    Args:
        call: Blocks, and is called in a thread. What it has done already must not harm when it is called again.
        stop: Set when nobody wants it any more; None where somebody cancels the task instead.
        tell: Told, once, what is being waited for.

    Raises:
        DatabaseBusyError: The database did not answer before `stop` was set.
        StorageUnavailableError: The storage did not.
    """
    pause, stop = _FIRST_PAUSE, stop or asyncio.Event()
    while True:
        try:
            return await asyncio.to_thread(call)
        except AWAY as exc:
            if stop.is_set():
                raise
            _LOG.warning("next try in %g s: %s", pause, exc)
            if pause == _FIRST_PAUSE:
                what = "storage" if isinstance(exc, StorageUnavailableError) else "database"
                tell(f"waiting for the server's {what}, which does not answer")
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
