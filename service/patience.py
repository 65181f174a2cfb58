"""Waiting for a database that is busy or away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

from service.errors import DatabaseBusyError

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS: Final = 1.0

_T = TypeVar("_T")


async def patiently(call: Callable[[], _T]) -> _T:
    """Calls in a thread, again and again while the database is busy or away, and returns what comes of it.

    For ever: to be used where somebody cancels it.
    """
    while True:
        try:
            return await asyncio.to_thread(call)
        except DatabaseBusyError as exc:
            _LOG.warning("waiting for the database: %s", exc)
            await asyncio.sleep(_PAUSE_SECONDS)
