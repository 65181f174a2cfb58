"""Waiting for the storage, where work must neither be lost nor fail because it is away for a while."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from service.errors import StorageUnavailableError

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0

_T = TypeVar("_T")


async def until_stored(call: Callable[[], _T], stop: asyncio.Event, tell: Callable[[str], None]) -> _T:
    """Calls again and again until the storage answers.

    Args:
        call: Blocks, and is called in a thread. What it has done already must not harm when it is called again.
        stop: Set when nobody wants it any more.
        tell: Told, once, what is being waited for.

    Raises:
        StorageUnavailableError: It did not answer before `stop` was set.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            return await asyncio.to_thread(call)
        except StorageUnavailableError as exc:
            if stop.is_set():
                raise
            _LOG.warning("waiting for the storage, next try in %g s: %s", pause, exc)
            if pause == _FIRST_PAUSE:
                tell("waiting for the server's storage, which does not answer")
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
