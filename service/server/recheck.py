"""Looks from time to time, while a call is being answered, whether it still may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from service.waiting import PASSING

T = TypeVar("T")

Look = Callable[[], Awaitable[object]]
"""Raises what stands against the call."""


async def kept(answer: Awaitable[T], look: Look, seconds: float) -> T:
    """Returns what a call answers, as long as nothing stands against it.

    Args:
        answer: Makes the answer; cancelled when something does.
        look: Asked every so often.
        seconds: How often.
    """
    return await _kept(asyncio.ensure_future(answer), look, [time.monotonic() + seconds], seconds)


async def kept_stream(answers: AsyncIterator[T], look: Look, seconds: float) -> AsyncGenerator[T, None]:
    """Yields what a call answers, as long as nothing stands against it. Arguments as for `kept`."""
    due = [time.monotonic() + seconds]
    async with aclosing(answers):  # type: ignore[type-var]
        while True:
            try:
                answer = await _kept(asyncio.create_task(_next(answers)), look, due, seconds)
            except StopAsyncIteration:
                return
            yield answer


async def _next(answers: AsyncIterator[T]) -> T:
    return await anext(answers)


async def _kept(task: asyncio.Future[T], look: Look, due: list[float], seconds: float) -> T:
    try:
        while not task.done():
            if time.monotonic() >= due[0]:
                due[0] = time.monotonic() + seconds
                await _look(look)
            await asyncio.wait({task}, timeout=max(0.0, due[0] - time.monotonic()))
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        # How it ended is nobody's business where this call was cancelled; unheard, asyncio would complain of it.
        if not task.cancelled():
            task.exception()


async def _look(look: Look) -> None:
    try:
        await look()
    except PASSING:
        return  # nobody knows just now; the next look tells
