"""The tokens that callers show. Only their SHA-256 is kept."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, final

from sqlalchemy import select

from service.access.principal import DEFAULT_SCOPES, Principal, Scope, check_name
from service.database.clock import now
from service.database.database import Database
from service.database.tables import TokenRow
from service.errors import AlreadyExistsError, InvalidRequestError, NotFoundError, UnauthenticatedError, Violation

PREFIX: Final = "shoal-token-"
_AGENT_PREFIX: Final = "shoal-agent-"
_TOKEN_BYTES: Final = 32
_LONGEST: Final = timedelta(days=36_500)
_UNKNOWN: Final = "nobody has this token; `shoal tokens add NAME` on the server's machine makes one"


@dataclass(frozen=True)
class NewToken:
    """What a token is to be.

    Attributes:
        name: Names the token, to list and remove it.
        principal: Who shows it; None for one of the token's name. Several tokens may stand for one principal.
        scopes: What it allows.
        lifetime: How long it is good for; None for ever.
    """

    name: str
    principal: str | None = None
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    lifetime: timedelta | None = None


@dataclass(frozen=True)
class Token:
    """What is known of a token, which is not the token itself."""

    name: str
    principal: Principal
    create_time: datetime
    expire_time: datetime | None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expire_time is not None and self.expire_time <= now()


@final
class TokenStore:
    """Tokens. Every method is one transaction, and may be called from any thread."""

    def __init__(self, database: Database) -> None:
        """Works on an open database."""
        self._database = database

    def add(self, new: NewToken) -> str:
        """Makes a token and returns it; nobody can find it out again.

        Raises:
            InvalidRequestError: A name breaks the rule, or the lifetime is over before it begins.
            AlreadyExistsError: There is one of that name.
        """
        principal = new.principal or new.name
        check_name(new.name, "name")
        check_name(principal, "principal")
        if new.lifetime is not None and not timedelta(0) < new.lifetime <= _LONGEST:
            raise InvalidRequestError([Violation("expires", f"must be more than nothing and at most {_LONGEST.days}d")])
        token = PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
        with self._database.write() as session:
            if session.get(TokenRow, new.name) is not None:
                raise AlreadyExistsError(
                    "token", new.name, f"there is a token {new.name!r} already; remove it first, or choose another name"
                )
            session.add(
                TokenRow(
                    name=new.name,
                    principal=principal,
                    scopes=" ".join(sorted(new.scopes)),
                    token_hash=hash_token(token),
                    create_time=now(),
                    expire_time=None if new.lifetime is None else now() + new.lifetime,
                )
            )
        return token

    def remove(self, name: str) -> None:
        """Forgets a token: it is worth nothing from the next call on.

        Raises:
            NotFoundError: There is none of that name.
        """
        with self._database.write() as session:
            row = session.get(TokenRow, name)
            if row is None:
                raise NotFoundError("token", name)
            session.delete(row)

    def all(self) -> list[Token]:
        """Returns what is known of every token, by name."""
        with self._database.read() as session:
            return [_token(row) for row in session.scalars(select(TokenRow).order_by(TokenRow.name))]

    def any(self) -> bool:
        """Returns whether there are tokens, expired ones among them."""
        with self._database.read() as session:
            return session.scalar(select(TokenRow.name).limit(1)) is not None

    def authenticate(self, text: str) -> Principal:
        """Returns whose token this is.

        Raises:
            UnauthenticatedError: Nobody's, or its time is over.
        """
        if text.startswith(_AGENT_PREFIX):
            raise UnauthenticatedError("this is the token of a device's agent; jobs need one from `shoal tokens add`")
        return self.recall(hash_token(text))

    def recall(self, digest: str) -> Principal:
        """Returns whose token has this hash.

        Raises:
            UnauthenticatedError: Nobody's, or its time is over.
        """
        with self._database.read() as session:
            row = session.scalar(select(TokenRow).where(TokenRow.token_hash == digest))
        if row is None:
            raise UnauthenticatedError(_UNKNOWN)
        token = _token(row)
        if token.expired:
            raise UnauthenticatedError(f"the token {token.name!r} has expired; ask the server's operator for another")
        return token.principal


def hash_token(text: str) -> str:
    """Returns what is kept of a token."""
    # Tokens are 256 random bits: there is nothing to guess, so a plain hash is as good as a slow one.
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _token(row: TokenRow) -> Token:
    principal = Principal(row.principal, frozenset(Scope(name) for name in row.scopes.split()))
    return Token(row.name, principal, row.create_time, row.expire_time)
