"""Who calls, and what they may do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from service.errors import InvalidRequestError, Violation

LOCAL_NAME: Final = "local"
"""Whoever uses a server that asks nobody who they are; what was stored before there were principals is theirs."""

OPERATOR_FILE: Final = "operator.token"
"""In the state folder of a server that runs: a token of `local`, for whoever may read that folder."""

MAX_NAME: Final = 63
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{MAX_NAME - 1}}}")


class Scope(StrEnum):
    """A kind of thing that may be done; what each call needs is in `service.server.access`."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    ARTIFACTS_WRITE = "artifacts:write"
    ADMIN = "admin"


DEFAULT_SCOPES: Final = frozenset({Scope.JOBS_READ, Scope.JOBS_WRITE, Scope.ARTIFACTS_WRITE})
"""What whoever uses a service needs; not `admin`, which sees and may do everything."""


@dataclass(frozen=True)
class Principal:
    """Who calls.

    Attributes:
        name: Owns jobs and artifacts.
        scopes: What they may do.
    """

    name: str
    scopes: frozenset[Scope] = DEFAULT_SCOPES

    @property
    def sees(self) -> str | None:
        """Whose jobs and artifacts they see; None for everybody's."""
        return None if Scope.ADMIN in self.scopes else self.name

    def may(self, scope: Scope) -> bool:
        """Returns whether they may do what needs `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


LOCAL: Final = Principal(LOCAL_NAME, frozenset({Scope.ADMIN}))


def is_name(text: str) -> bool:
    """Returns whether a principal may be called so."""
    return _NAME.fullmatch(text) is not None


def check_name(text: str, field: str) -> None:
    """Makes sure that a principal or token may be called so.

    Raises:
        InvalidRequestError: It may not.
    """
    if not is_name(text):
        rule = f"must be 1 to {MAX_NAME} of [A-Za-z0-9._@-], starting with a letter or digit; got {text!r}"
        raise InvalidRequestError([Violation(field, rule)])


def read_scopes(texts: tuple[str, ...]) -> frozenset[Scope]:
    """Returns scopes by their names; the default ones for none.

    Raises:
        InvalidRequestError: There is no such scope.
    """
    known = {str(scope): scope for scope in Scope}
    if unknown := [text for text in texts if text not in known]:
        raise InvalidRequestError([Violation("scope", f"{unknown[0]!r} is none; there are: {', '.join(known)}")])
    return frozenset(known[text] for text in texts) or DEFAULT_SCOPES
