"""Signing in with a token, and out again: all that may be sent to this site."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, final
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.access.rates import RateLimit
from service.errors import ForbiddenError, InvalidRequestError, QuotaError, UnauthenticatedError, Violation
from service.web.drawing import page
from service.web.visitors import Visitors

HOME: Final = "/jobs"
_LONGEST_FORM: Final = 8192
_FORM: Final = "application/x-www-form-urlencoded"


@final
class Attempts:
    """How often somebody may try to sign in, by the address that they come from."""

    PER_SECOND: Final = 0.2
    BURST: Final = 10
    _MOST: Final = 10_000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Starts with nobody.

        Args:
            clock: Seconds.
        """
        self._clock = clock
        self._seen: set[str] = set()
        self._rates = RateLimit(self.PER_SECOND, self.BURST, clock)

    def take(self, address: str) -> None:
        """Counts an attempt.

        Raises:
            QuotaError: It is one too many.
        """
        if len(self._seen) >= self._MOST:
            # Forgetting all is better than remembering without end: tokens cannot be guessed anyway.
            self._seen.clear()
            self._rates = RateLimit(self.PER_SECOND, self.BURST, self._clock)
        self._seen.add(address)
        try:
            self._rates.take(address)
        except QuotaError as exc:
            raise QuotaError("sign-ins", "too many attempts; wait a moment", exc.retry_seconds) from exc


@final
class Signing:
    """The form to sign in with, and what becomes of it."""

    def __init__(self, visitors: Visitors) -> None:
        """Signs in whom `visitors` know."""
        self._visitors, self._attempts = visitors, Attempts()

    async def form(self, request: Request) -> Response:
        """Shows the form; who is known already is sent on."""
        onward = safe_path(request.query_params.get("next", ""))
        try:
            await self._visitors.recognise(request)
        except (UnauthenticatedError, ForbiddenError):
            # Browsers hide the session from pages that another site's link led to, but not from the next click.
            elsewhere = request.headers.get("sec-fetch-site") == "cross-site"
            return _form(onward, "", HTTPStatus.OK, elsewhere=elsewhere)
        return RedirectResponse(onward, HTTPStatus.SEE_OTHER)

    async def sign_in(self, request: Request) -> Response:
        """Begins a session."""
        check_origin(request)
        self._attempts.take(request.client.host if request.client is not None else "")
        fields = await _read_form(request)
        onward = safe_path(fields.get("next", ""))
        try:
            headers = await self._visitors.sign_in(fields.get("token", "").strip())
        except UnauthenticatedError:
            return _form(onward, "Nobody has this token, or its time is over.", HTTPStatus.UNAUTHORIZED)
        except ForbiddenError as exc:
            return _form(onward, str(exc), HTTPStatus.FORBIDDEN)
        return RedirectResponse(onward, HTTPStatus.SEE_OTHER, dict(headers))

    async def sign_out(self, request: Request) -> Response:
        """Ends a session."""
        check_origin(request)
        return RedirectResponse("/login", HTTPStatus.SEE_OTHER, dict(self._visitors.sign_out(request)))


def check_origin(request: Request) -> None:
    """Makes sure that a form was sent by one of our own pages, or by a program.

    Raises:
        ForbiddenError: It was another site's.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    foreign = site not in {None, "same-origin", "none"}
    if site is None and origin is not None:
        foreign = urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
    if foreign:
        raise ForbiddenError("this form was sent by another site; open the page here and try again")


def safe_path(text: str) -> str:
    """Returns a path of this site to go on to; the first page for anything else."""
    harmless = text.startswith("/") and not text.startswith("//") and "\\" not in text and text.isprintable()
    return text if harmless and text.isascii() else HOME


async def _read_form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise InvalidRequestError([Violation("content-type", f"must be {_FORM}")])
    body = b""
    async for block in request.stream():
        body += block
        if len(body) > _LONGEST_FORM:
            raise InvalidRequestError([Violation("token", "is longer than any token")])
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=10)
    except ValueError as exc:
        raise InvalidRequestError([Violation("token", "is not sent as browsers send forms")]) from exc
    return {name: values[0] for name, values in fields.items()}


def _form(onward: str, problem: str, status: HTTPStatus, *, elsewhere: bool = False) -> Response:
    return page("login.html.j2", status, title="Sign in", onward=onward, problem=problem, elsewhere=elsewhere)
