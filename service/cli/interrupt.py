"""Ctrl-C while a job runs: the first asks for the job to be cancelled, the second leaves it to itself."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


@contextmanager
def first_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Runs `action` in a thread of its own at the first SIGINT; a second one raises KeyboardInterrupt as usual.

    The thread is needed because a signal handler runs between two instructions of whatever waits for the server, and
    must not call the server itself.
    """
    seen = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True
        threading.Thread(target=action, name="cancel", daemon=True).start()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
