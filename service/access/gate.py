"""Decides who a caller is, from what they show: a token, a certificate, or nothing.

1. A token counts before anything else; a wrong one is refused even where none is needed, once there are tokens.
2. With `certificate_names`, the subject's common name of a certificate that the transport has verified is a principal.
3. Where only this machine can call and no token was ever made, everybody is `local`, who may do everything.
4. Everybody else is refused.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from service.access.principal import DEFAULT_SCOPES, LOCAL, LOCAL_NAME, OPERATOR_FILE, Principal, is_name
from service.access.tokens import TokenStore, hash_token
from service.errors import UnauthenticatedError
from service.storage.disk import disk_errors

_BEARER: Final = "bearer "
_WHAT_TO_DO: Final = (
    "send a token, `authorization: Bearer TOKEN` (SHOAL_TOKEN or --token-file in the command line); "
    "`shoal tokens add NAME` on the server's machine makes one"
)


@dataclass(frozen=True)
class Shown:
    """What a caller shows.

    Attributes:
        authorization: The header; empty if there was none.
        common_name: Of the subject of the verified certificate; None without one.
    """

    authorization: str = ""
    common_name: str | None = None


@final
class Gate:
    """Says who calls. May be used from any thread."""

    def __init__(self, tokens: TokenStore, *, local_only: bool, certificate_names: bool, operator: str) -> None:
        """Asks a store of tokens.

        Args:
            tokens: The store.
            local_only: Nobody but this machine can call.
            certificate_names: Whether common names are principals.
            operator: Hash of the token that stands for whoever may read the state folder.
        """
        self._tokens, self._operator = tokens, operator
        self._local_only, self._certificate_names = local_only, certificate_names

    def admit(self, shown: Shown) -> Principal:
        """Returns who calls.

        Raises:
            UnauthenticatedError: Nobody knows.
        """
        if shown.authorization:
            return self._bearer(shown.authorization)
        if self._certificate_names and shown.common_name is not None:
            return _of_certificate(shown.common_name)
        if self._open:
            return LOCAL
        raise UnauthenticatedError(f"this server has to know who calls; {_WHAT_TO_DO}")

    def closed(self) -> Gate:
        """Returns one for a door that others can reach too: whoever comes has to show something."""
        return Gate(self._tokens, local_only=False, certificate_names=self._certificate_names, operator=self._operator)

    def recall(self, digest: str) -> Principal:
        """Returns who shows the token that has this hash, which was shown before.

        Raises:
            UnauthenticatedError: It was removed meanwhile, or its time is over.
        """
        if secrets.compare_digest(digest, self._operator):
            return LOCAL
        return self._tokens.recall(digest)

    @property
    def _open(self) -> bool:
        return self._local_only and not self._certificate_names and not self._tokens.any()

    def _bearer(self, header: str) -> Principal:
        if header[: len(_BEARER)].lower() != _BEARER:
            raise UnauthenticatedError(f"the authorization header is of another kind; {_WHAT_TO_DO}")
        text = header[len(_BEARER) :].strip()
        if secrets.compare_digest(hash_token(text), self._operator) or self._open:
            return LOCAL
        return self._tokens.authenticate(text)


def write_operator_token(state: Path) -> str:
    """Makes a token for whoever may read the state folder, good as long as the server runs; returns its hash.

    Who can read the folder can read and change everything in it, so the token gives nothing that they do not have. The
    commands of the server's own machine use it, so that they go on working when others need tokens.

    Raises:
        DiskFullError: There is no room for it.
    """
    token = secrets.token_urlsafe(32)
    path, temporary = state / OPERATOR_FILE, state / f".{OPERATOR_FILE}"
    with disk_errors("the state folder"):
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600, exist_ok=False)
        temporary.write_text(token)
        temporary.replace(path)
    return hash_token(token)


def _of_certificate(name: str) -> Principal:
    if name == LOCAL_NAME or not is_name(name):
        raise UnauthenticatedError(
            f"the common name of your certificate, {name[:100]!r}, cannot be a principal: it must be of "
            f"[A-Za-z0-9._@-], and not {LOCAL_NAME!r}"
        )
    return Principal(name, DEFAULT_SCOPES)
