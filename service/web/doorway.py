"""What every request passes and every answer gets: a check of the host's name, headers, errors as pages, a count.

A page of this server must not be shown inside of another's, run what is not its own, or be reached under a name that
somebody else owns: a site that has its own name point to this machine (DNS rebinding) would read what is here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.watching.meter import OTHER, Meter, Page
from service.web.refusals import WrongHostError, answer

_LOG = logging.getLogger(__name__)
POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not `no-referrer`: browsers would hide where a form comes from, which is asked when somebody signs in.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


@dataclass
class _Seen:
    """What is known of a request under way; the status is 0 until the answer begins."""

    status: int = 0


@final
class Doorway:
    """An application around another."""

    def __init__(self, inside: ASGIApp, meter: Meter, hosts: Collection[str]) -> None:
        """Guards an application.

        Args:
            inside: The application.
            meter: Counts.
            hosts: Names that the server may be called by, lower case; empty for any.
        """
        self._inside, self._meter = inside, meter
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"nothing but HTTP is answered here, not {scope['type']}")
        seen, began = _Seen(), time.monotonic()

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                self._complete(message)
            await send(message)

        try:
            await self._answered(scope, receive, sending, seen)
        finally:
            self._count(scope, seen.status, time.monotonic() - began)

    async def _answered(self, scope: Scope, receive: Receive, send: Send, seen: _Seen) -> None:
        request = Request(scope, receive)
        try:
            self._check_host(request)
            await self._inside(scope, receive, send)
        except Exception as exc:  # noqa: BLE001 (the boundary: everything becomes a page)
            response = answer(exc, request)
            if not seen.status:
                await response(scope, receive, send)

    def _check_host(self, request: Request) -> None:
        if not self._hosts:
            return
        host = request.headers.get("host", "").lower()
        name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        if name not in self._hosts:
            raise WrongHostError(
                "this server is not known by the name that your browser calls it by; open it as 127.0.0.1 or "
                "localhost, or have its operator allow the name: the setting web_names"
            )

    def _complete(self, message: MutableMapping[str, Any]) -> None:
        own = list(message.get("headers", ()))
        there = {name.lower() for name, _ in own}
        ours = ((name.encode(), value.encode()) for name, value in _HEADERS.items())
        message["headers"] = [*own, *((name, value) for name, value in ours if name not in there)]

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        # What is not one of our own addresses is not named: names would come from outside.
        route = scope.get("route")
        pattern = OTHER if route is None else str(route.path)
        _LOG.debug("%s %s: %d, took %.3f s", scope["method"], pattern, status, seconds)
        self._meter.page_ended(Page(pattern, status, seconds))


def not_found(request: Request) -> HTTPException:
    """Returns what to raise where there is nothing."""
    return HTTPException(404, f"there is nothing at {request.url.path[:200]}")
