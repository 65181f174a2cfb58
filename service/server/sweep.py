"""Clears away, while the server runs, what nobody came back for."""

from __future__ import annotations

import asyncio
import logging
from asyncio import to_thread
from collections.abc import Callable
from typing import Final

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE: Final = 3600.0


async def sweep(forget: Callable[[], None], retention: float) -> None:
    """Calls `forget` again and again, until it is cancelled.

    Args:
        forget: Forgets what is old; may block.
        retention: Seconds that things are kept; they are gone at most a quarter of that, or an hour, later.
    """
    while True:
        await asyncio.sleep(min(_LONGEST_PAUSE, retention / 4))
        try:
            await to_thread(forget)
        except Exception:  # noqa: BLE001 (the next round may do better)
            _LOG.exception("cannot clear away old uploads, trying again later")
