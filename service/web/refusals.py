"""From an exception to the page that says so."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from service.errors import QuotaError, ServiceError
from service.faults import UNEXPECTED, classify
from service.web.drawing import page

_LOG = logging.getLogger(__name__)
STATUSES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "INVALID_ARGUMENT": 400,
        "OUT_OF_RANGE": 400,
        "UNAUTHENTICATED": 401,
        "PERMISSION_DENIED": 403,
        "NOT_FOUND": 404,
        "ALREADY_EXISTS": 409,
        "ABORTED": 409,
        "FAILED_PRECONDITION": 409,
        "RESOURCE_EXHAUSTED": 429,
        "UNAVAILABLE": 503,
        "DEADLINE_EXCEEDED": 504,
    }
)
"""HTTP status by the gRPC code that `service.faults` gives; 500 for all others."""


class WrongHostError(Exception):
    """The server was called by a name that is not its own."""


def answer(error: Exception, request: Request) -> Response:
    """Returns what a browser or program is told. What nobody foresaw is logged, and only an id for it goes out."""
    status, text = _told(error)
    if status == HTTPStatus.UNAUTHORIZED and _shows_pages(request):
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(asked, safe='')}", 303)
    headers = {"www-authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    if isinstance(error, QuotaError) and error.retry_seconds is not None:
        headers["retry-after"] = str(math.ceil(error.retry_seconds))
    if isinstance(error, HTTPException):
        headers |= dict(error.headers or {})
    if not _shows_pages(request):
        return PlainTextResponse(f"{text}\n", status, headers)
    return page("error.html.j2", status, headers, title=HTTPStatus(status).phrase, text=text, code=status)


def _told(error: Exception) -> tuple[int, str]:
    if isinstance(error, WrongHostError):
        return 421, str(error)
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    fault = classify(error)
    if fault is UNEXPECTED or not isinstance(error, ServiceError):
        error_id = secrets.token_hex(8)
        _LOG.error("unexpected error %s", error_id, exc_info=error)
        return 500, f"internal error {error_id}; the server's log says more under this id"
    return STATUSES.get(fault.code, 500), str(error)


def _shows_pages(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")
