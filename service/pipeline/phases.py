"""How far a job is: phases with their share of the whole, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from service.watching.spans import spanning
from service.watching.surroundings import surrounded

Report = Callable[[str, float, str, Mapping[str, float]], None]
"""Takes phase, fraction of the whole job in [0, 1], one line for people, and the metrics known so far."""

Note = Callable[[Mapping[str, float]], None]
"""Takes the seconds of every phase so far."""

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


def _unnoted(_seconds: Mapping[str, float]) -> None:
    """Takes no note."""


class Phases:
    """Turns what single phases say into progress of the whole job, which never goes backwards.

    Args:
        report: Where progress goes.
        seconds: How long the job may still take, from now on.
        earlier: How long each phase took in attempts before this one.
        note: Told, often, how long each phase has taken.
    """

    def __init__(
        self, report: Report, seconds: float, earlier: Mapping[str, float] | None = None, note: Note = _unnoted
    ) -> None:
        self._report, self._note = report, note
        self._started = time.monotonic()
        self._since = self._started
        self.seconds: dict[str, float] = dict(earlier or {})
        self._earlier = sum(self.seconds.values())
        self._limit = self._earlier + seconds
        self._excluded = 0.0
        self._fraction = 0.0
        self._phase = next(iter(SHARES))
        self._metrics: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the start, those of earlier attempts included, without `exclude`d ones."""
        return self._earlier + time.monotonic() - self._started - self._excluded

    def exclude(self, seconds: float) -> None:
        """Takes seconds out that the job spent waiting: they count neither against its limit nor as a phase's."""
        self._excluded += seconds
        self._since += seconds

    def seconds_left(self, reserve: float = 0.0) -> float:
        """Returns the seconds until the time limit, less what later phases need; below 0 when over."""
        return self._limit - self.elapsed - reserve

    @contextmanager
    def phase(self, name: str, message: str) -> Iterator[None]:
        """Names what is going on inside the `with`, and adds up how long it took, phases within it not counted."""
        with surrounded(phase=name), spanning(name):
            outer = self._switch(name)
            self(0.0, message)
            try:
                yield
            finally:
                self._switch(outer)

    def _switch(self, name: str) -> str:
        """Books the time since the last switch on the present phase, makes `name` present, and returns what was."""
        outer = self._phase
        self._book()
        self._phase = name
        return outer

    def _book(self) -> None:
        now = time.monotonic()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._since = now
        self._note(self.seconds)

    def note(self, **metrics: float) -> None:
        """Adds numbers that every later report carries."""
        self._metrics.update(metrics)

    def __call__(self, fraction: float, message: str, metrics: Mapping[str, float] | None = None) -> None:
        """Reports progress inside the current phase, `fraction` of it in [0, 1].

        A metric `seconds_left` is the phase's own estimate; what is reported includes the phases that follow.
        """
        self._book()
        told = dict(metrics or {})
        left = told.pop("seconds_left", None)
        self._metrics.update(told)
        names = list(SHARES)
        before = sum(SHARES[name] for name in names[: names.index(self._phase)])
        now = before + SHARES[self._phase] * min(1.0, max(0.0, fraction))
        self._fraction = max(self._fraction, min(1.0, now))
        estimate = {} if left is None else {"seconds_left": left + self._seconds_after()}
        self._report(self._phase, self._fraction, message, self._metrics | estimate)

    def _seconds_after(self) -> float:
        """Returns how long the phases after this one may take: they export and time, as the baseline's phase did."""
        names = list(SHARES)
        following = sum(SHARES[name] for name in names[names.index(self._phase) + 1 :])
        return self.seconds.get("baseline", 0.0) * following / SHARES["baseline"]
