"""Does a thing once per key, however many threads ask for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, final

T = TypeVar("T")


@final
class Once(Generic[T]):
    """Answers by key; who asks while the answer is being made waits for it. What failed is tried again."""

    def __init__(self) -> None:
        self._locks: dict[str, threading.Lock] = {}
        self._answers: dict[str, T] = {}
        self._guard = threading.Lock()

    def get(self, key: str, make: Callable[[], T]) -> T:
        """Returns the answer for a key, made by the first who asks."""
        with self.lock(key):
            if key not in self._answers:
                self._answers[key] = make()
            return self._answers[key]

    def lock(self, key: str) -> threading.Lock:
        """Returns the lock of a key."""
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())
