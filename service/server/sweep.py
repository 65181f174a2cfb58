"""Clears away, while the server runs, what nobody needs."""

from __future__ import annotations

import asyncio
from asyncio import to_thread
from collections.abc import Callable
from typing import Final

_FIRST_PAUSE: Final = 60.0


async def sweep(tidy: Callable[[], None], pause: float) -> None:
    """Calls `tidy` again and again, until it is cancelled.

    Args:
        tidy: Clears away what is old; may block, and copes with its own troubles.
        pause: Seconds from one round to the next; the first comes soon, for servers that do not live for long.
    """
    await asyncio.sleep(min(_FIRST_PAUSE, pause))
    while True:
        await to_thread(tidy)
        await asyncio.sleep(pause)
