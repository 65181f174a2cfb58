"""Waiting for an event."""

from __future__ import annotations

import asyncio

import pytest

from service.waiting import set_within


async def test_an_event_is_waited_for() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)
    assert await set_within(event, 10)
    assert not await set_within(asyncio.Event(), 0.01)


@pytest.mark.parametrize("turns", range(4))
async def test_a_loop_that_is_cancelled_as_the_event_is_set_ends(turns: int) -> None:
    """`asyncio.wait_for` in its place goes on where the event was set one turn before (Python 3.11)."""
    event = asyncio.Event()

    async def loop() -> None:
        while True:
            await set_within(event, 10)
            event.clear()

    looping = asyncio.create_task(loop())
    await asyncio.sleep(0.01)
    event.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    looping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(looping, 1)
