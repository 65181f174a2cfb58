"""Decides who looks at a page: by a program's header, a browser's session, or as `service.access.gate` says."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from starlette.requests import Request

from service.access.gate import Gate, Shown
from service.access.principal import Principal, Scope
from service.access.rates import RateLimit
from service.access.tokens import hash_token
from service.errors import ForbiddenError, UnauthenticatedError
from service.web.sessions import LIFETIME, Sessions

COMMON_NAME: Final = "shoal.common_name"
"""Where the server puts the common name of a verified certificate into a request's scope."""


@dataclass(frozen=True)
class Visitor:
    """Who looks at a page.

    Attributes:
        principal: Who it is.
        signed_in: Whether by a session, which can be ended.
    """

    principal: Principal
    signed_in: bool = False

    @property
    def sees(self) -> str | None:
        """Whose jobs they see; None for everybody's."""
        return self.principal.sees


@final
class Visitors:
    """Those who look at pages, with their sessions."""

    def __init__(self, gate: Gate, rates: RateLimit, *, tls: bool) -> None:
        """Knows whom the gate knows.

        Args:
            gate: Of the door that browsers come through.
            rates: Counts pages.
            tls: Whether that door speaks TLS, so that cookies never go without it.
        """
        self._gate, self._rates, self._tls = gate, rates, tls
        self._sessions = Sessions()
        # The prefix has browsers refuse the cookie from anybody but this very host, and without TLS.
        self._cookie = "__Host-shoal-session" if tls else "shoal-session"

    async def admit(self, request: Request) -> Visitor:
        """Returns who looks.

        Raises:
            UnauthenticatedError: Nobody knows.
            ForbiddenError: They may not look at jobs.
            QuotaError: They look too often.
        """
        visitor = await self.recognise(request)
        self._rates.take(visitor.principal.name)
        return visitor

    async def recognise(self, request: Request) -> Visitor:
        """Returns who looks, without counting it.

        Raises:
            UnauthenticatedError: Nobody knows.
            ForbiddenError: They may not look at jobs.
        """
        visitor = await to_thread(
            self._recognise,
            request.headers.get("authorization", ""),
            request.cookies.get(self._cookie, ""),
            request.scope.get(COMMON_NAME),
        )
        _check_scope(visitor.principal)
        return visitor

    def _recognise(self, authorization: str, session_id: str, common_name: str | None) -> Visitor:
        session = self._sessions.find(session_id) if session_id and not authorization else None
        if session is not None:
            try:
                return Visitor(self._gate.recall(session.token_hash), signed_in=True)
            except UnauthenticatedError:
                self._sessions.close(session_id)
        return Visitor(self._gate.admit(Shown(authorization, common_name)))

    async def sign_in(self, token: str) -> Mapping[str, str]:
        """Begins a session of whoever has this token; returns the headers that tell the browser.

        Raises:
            UnauthenticatedError: Nobody has it.
            ForbiddenError: It does not allow to look at jobs.
        """
        principal = await to_thread(self._gate.admit, Shown(f"Bearer {token}"))
        _check_scope(principal)
        return self._set_cookie(self._sessions.open(hash_token(token)), int(LIFETIME))

    def sign_out(self, request: Request) -> Mapping[str, str]:
        """Ends the session of a browser; returns the headers that tell it."""
        self._sessions.close(request.cookies.get(self._cookie, ""))
        return self._set_cookie("", 0)

    def _set_cookie(self, value: str, seconds: int) -> Mapping[str, str]:
        secure = "; Secure" if self._tls else ""
        cookie = f"{self._cookie}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
        return {"set-cookie": cookie}


def _check_scope(principal: Principal) -> None:
    if not principal.may(Scope.JOBS_READ):
        raise ForbiddenError(
            f"{principal.name} may not look at jobs: it takes the scope {Scope.JOBS_READ}, which this token lacks"
        )
