"""Callers with tokens, and a stub that shows one with each call."""

from __future__ import annotations

from functools import partial
from typing import Any

from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.access.principal import DEFAULT_SCOPES, Scope
from service.access.tokens import NewToken, TokenStore
from service.database.database import Database
from service.settings import ServerSettings


def make_tokens(settings: ServerSettings, *names: str, scopes: frozenset[Scope] = DEFAULT_SCOPES) -> list[str]:
    """Tokens that the server knows, one for each name."""
    settings.state_dir.mkdir(exist_ok=True)
    database = Database(settings.database)
    try:
        return [TokenStore(database).add(NewToken(name, scopes=scopes)) for name in names]
    finally:
        database.close()


def make_admin(settings: ServerSettings) -> str:
    """The token of somebody who may do everything."""
    return make_tokens(settings, "root", scopes=frozenset({Scope.ADMIN}))[0]


class Speaker:
    """A stub that says who calls; to be used wherever a stub is."""

    def __init__(self, stub: ModelOptimizerStub, token: str) -> None:
        self._stub, self._metadata = stub, (("authorization", f"Bearer {token}"),)

    def __getattr__(self, name: str) -> Any:
        return partial(getattr(self._stub, name), metadata=self._metadata)


def speaking(stub: ModelOptimizerStub, token: str) -> ModelOptimizerStub:
    """A stub that shows a token."""
    return Speaker(stub, token)  # type: ignore[return-value]
