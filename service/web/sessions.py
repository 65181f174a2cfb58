"""Who has signed in. In memory, so a restart signs everybody out.

A browser holds a random id, never the token. Here are the hash of that id and the hash of the token, by which the token
is looked up again for every page: one that was removed is worth nothing at once.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from service.access.tokens import hash_token

LIFETIME: Final = 12 * 3600.0
"""Seconds after which one has to sign in again."""

_MOST: Final = 10_000
_ID_BYTES: Final = 32


@dataclass(frozen=True)
class Session:
    """One browser that has signed in.

    Attributes:
        token_hash: Of the token that was shown.
        end: On the clock of the sessions, seconds.
    """

    token_hash: str
    end: float


@final
class Sessions:
    """Sessions by the hashes of their ids. May be used from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Knows nobody.

        Args:
            clock: Seconds.
        """
        self._clock = clock
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, token_hash: str) -> str:
        """Begins a session and returns its id, which is kept nowhere but in the browser."""
        session_id = secrets.token_urlsafe(_ID_BYTES)
        with self._lock:
            self._known[hash_token(session_id)] = Session(token_hash, self._clock() + LIFETIME)
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return session_id

    def find(self, session_id: str) -> Session | None:
        """Returns a session; None if there is none, or its time is over."""
        key = hash_token(session_id)
        with self._lock:
            session = self._known.get(key)
            if session is not None and session.end <= self._clock():
                del self._known[key]
                return None
            return session

    def close(self, session_id: str) -> None:
        """Ends a session, if there is one."""
        with self._lock:
            self._known.pop(hash_token(session_id), None)
