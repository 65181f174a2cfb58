"""How far a job is: phases with their share of the whole, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Report = Callable[[str, float, str, Mapping[str, float]], None]
"""Takes phase, fraction of the whole job in [0, 1], one line for people, and the metrics known so far."""

SHARES: Mapping[str, float] = {
    "load": 0.03,
    "analyze": 0.02,
    "baseline": 0.08,
    "plan": 0.32,
    "tune": 0.40,
    "export": 0.04,
    "measure": 0.09,
    "report": 0.02,
}
"""Each phase's share of a typical job's time; they add up to 1."""


class Phases:
    """Turns what single phases say into progress of the whole job, which never goes backwards."""

    def __init__(self, report: Report, seconds: float) -> None:
        """Starts the clock; `seconds` is how long the job may take."""
        self._report = report
        self._started = time.monotonic()
        self._limit = seconds
        self._fraction = 0.0
        self._phase = next(iter(SHARES))
        self._metrics: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def seconds_left(self, reserve: float = 0.0) -> float:
        """Returns the seconds until the time limit, less what later phases need; below 0 when over."""
        return self._limit - self.elapsed - reserve

    @contextmanager
    def phase(self, name: str, message: str) -> Iterator[None]:
        """Names what is going on inside the `with`, and adds up how long it took."""
        self._phase = name
        self(0.0, message)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    def note(self, **metrics: float) -> None:
        """Adds numbers that every later report carries."""
        self._metrics.update(metrics)

    def __call__(self, fraction: float, message: str, metrics: Mapping[str, float] | None = None) -> None:
        """Reports progress inside the current phase, `fraction` of it in [0, 1]."""
        self._metrics.update(metrics or {})
        names = list(SHARES)
        before = sum(SHARES[name] for name in names[: names.index(self._phase)])
        now = before + SHARES[self._phase] * min(1.0, max(0.0, fraction))
        self._fraction = max(self._fraction, min(1.0, now))
        self._report(self._phase, self._fraction, message, dict(self._metrics))
