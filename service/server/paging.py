"""Page tokens: opaque to callers, and stable when jobs are added, because they name a place and not a count."""

from __future__ import annotations

import base64
import binascii
import re

from service.errors import InvalidRequestError, Violation

DEFAULT_PAGE = 50
MAX_PAGE = 500
_TOKEN = re.compile(rb"v1:([1-9][0-9]{0,17})")


def read_page_size(size: int) -> int:
    """Returns how many items to give.

    Raises:
        InvalidRequestError: It is negative.
    """
    if size < 0:
        raise InvalidRequestError([Violation("page_size", "must not be negative")])
    return min(size, MAX_PAGE) or DEFAULT_PAGE


def read_token(token: str) -> int | None:
    """Returns the number to go on before; None for the first page.

    Raises:
        InvalidRequestError: It is no token of ours.
    """
    if not token:
        return None
    try:
        match = _TOKEN.fullmatch(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, ValueError):
        match = None
    if match is None:
        raise InvalidRequestError([Violation("page_token", "must be a next_page_token from the previous page")])
    return int(match[1])


def write_token(number: int) -> str:
    """Returns the token for the page that goes on before `number`."""
    return base64.urlsafe_b64encode(b"v1:%d" % number).decode()
