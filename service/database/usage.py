"""Counts who uses something, so that it can be closed after the last one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final


@final
class Usage:
    """May be used from any thread."""

    def __init__(self) -> None:
        """Nobody uses it yet."""
        self._changed = threading.Condition()
        self._users = 0

    @contextmanager
    def using(self) -> Iterator[None]:
        """Surrounds a use."""
        with self._changed:
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Returns once nobody uses it, or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._users == 0, seconds)
