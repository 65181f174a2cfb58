"""How often somebody may call: a bucket of tokens for each, filled at a steady rate.

In memory, so each server counts for itself, and a restart fills all buckets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import final

from service.errors import QuotaError


@final
class RateLimit:
    """Calls per second and principal. May be used from any thread."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with full buckets.

        Args:
            per_second: Calls that each principal may make in the long run, > 0.
            burst: Calls that it may make at once after a pause, at least 1.
            clock: Seconds.
        """
        self._per_second, self._burst, self._clock = per_second, burst, clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, principal: str) -> None:
        """Counts a call.

        Raises:
            QuotaError: It is one too many; says when the next one may be made.
        """
        with self._lock:
            moment = self._clock()
            level, filled = self._buckets.get(principal, (float(self._burst), moment))
            level = min(self._burst, level + (moment - filled) * self._per_second)
            allowed = level >= 1.0
            self._buckets[principal] = (level - 1.0 if allowed else level, moment)
        if not allowed:
            raise QuotaError(
                "calls",
                f"more than {self._per_second:g} calls per second; wait a moment between calls",
                (1.0 - level) / self._per_second,
            )
