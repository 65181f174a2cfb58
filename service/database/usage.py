"""Counts who uses something, so that it can be closed after the last one, and for good."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from service.errors import DatabaseUnavailableError


@final
class Usage:
    """May be used from any thread."""

    def __init__(self) -> None:
        """Nobody uses it yet."""
        self._changed = threading.Condition()
        self._users = 0
        self._closed = False

    @contextmanager
    def using(self) -> Iterator[None]:
        """Surrounds a use.

        Raises:
            DatabaseUnavailableError: It was closed. A call that its server left over may come so late.
        """
        with self._changed:
            if self._closed:
                raise DatabaseUnavailableError("the server has stopped and closed its database; try again")
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def close(self, seconds: float) -> None:
        """Returns once nobody uses it, or after so many seconds; nobody can from then on."""
        with self._changed:
            self._changed.wait_for(lambda: self._users == 0, seconds)
            self._closed = True
