"""A lease that is kept while work is under way."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final, final

from deploy.agent.errors import AgentError, StoppedError, UnwantedError
from deploy.agent.link import Link
from protos.shoal.v1 import device_agents_pb2 as pb

_RENEW_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.2


@final
class Lease:
    """Keeps a piece of work from being given to others, as a context.

    Attributes:
        cancel: Set when the work is no longer wanted, or the agent is stopped.
        refused: Why the server does not let it be kept, None where it does or the work is no longer wanted.
    """

    def __init__(self, link: Link, work: pb.Work, stop: threading.Event) -> None:
        """Keeps nothing before it is entered."""
        self.cancel = threading.Event()
        self.refused: AgentError | None = None
        self._link, self._work, self._stop = link, work, stop
        self._message = "beginning"
        self._began: float | None = None
        self._over = threading.Event()
        self._news = threading.Event()

    def say(self, message: str) -> None:
        """Has the server told what is being done."""
        self._message = message
        self._news.set()

    def begin(self) -> None:
        """Has the server told from now on how long the work is under way: that time is its job's."""
        self._began = time.monotonic()

    def __enter__(self) -> Lease:
        for target in (self._keep, self._watch):
            threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._news.set()

    def _keep(self) -> None:
        """Renews; a server that does not answer is waited for, and the work goes on meanwhile."""
        try:
            while not self._over.is_set():
                self._news.clear()
                worked = 0.0 if self._began is None else time.monotonic() - self._began
                if not self._link.renew(self._work, self._message, worked):
                    self.cancel.set()
                    return
                self._news.wait(_RENEW_SECONDS)
        except (StoppedError, UnwantedError):
            self.cancel.set()
        except AgentError as exc:
            self.refused = exc
            self.cancel.set()

    def _watch(self) -> None:
        while not self._over.is_set():
            if self._stop.wait(_POLL_SECONDS):
                self.cancel.set()
                return
