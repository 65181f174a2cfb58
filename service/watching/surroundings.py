"""What is being done while something is logged: the job, its phase, a piece of device work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType

_NOTHING: Mapping[str, str] = MappingProxyType({})
_here: ContextVar[Mapping[str, str]] = ContextVar("surroundings", default=_NOTHING)
_everywhere: dict[str, str] = {}


def surroundings() -> dict[str, str]:
    """Returns what is known where this is called, e.g. `{"job": "optimizationJobs/some", "phase": "plan"}`."""
    return {**_everywhere, **_here.get()}


@contextmanager
def surrounded(**fields: str) -> Iterator[None]:
    """Adds to what is known, for this task or thread and what it starts with a copy of its context."""
    token = _here.set({**_here.get(), **fields})
    try:
        yield
    finally:
        # A generator that is closed by somebody else ends in another context, where there is nothing to take back.
        with suppress(ValueError):
            _here.reset(token)


def settle(**fields: str) -> None:
    """Adds to what is known in the whole process, all its threads included."""
    _everywhere.update(fields)
