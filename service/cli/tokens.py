"""`shoal tokens`: who may call the server of this machine, and what they may do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli import table
from service.cli.connect import tell
from service.cli.errors import Status
from service.cli.options import DURATION, json_option
from service.cli.security import TOKEN_VARIABLE
from service.cli.state import database_option, open_database, state_option

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from service.access.tokens import Token

SCOPES: Final = ("jobs:read", "jobs:write", "artifacts:write", "admin")


@click.group()
def tokens() -> None:
    """Decide who may call the server of this machine.

    These commands work on the server's state folder, whether the server runs or not. As long as there is no token, a
    server that only this machine can reach takes every call; one that others can reach takes none.
    """


@tokens.command()
@click.argument("name")
@click.option("--principal", metavar="NAME", help="Who the token stands for. Default: NAME. Jobs and files are theirs.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True,
              help="What it allows; repeatable. Default: all but admin, which sees and may do everything.")  # fmt: skip
@click.option("--expires", type=DURATION, help="How long it is good for, like 90d. Default: until it is removed.")
@json_option
@state_option
@database_option
def add(as_json: bool, state_dir: str | None, database_url: str | None, **wanted: Any) -> int:
    """Make a token and print it, once.

    It is kept as a hash only: who loses it needs another.
    """
    with open_database(state_dir, database_url) as database:
        from service.access.tokens import TokenStore

        token = TokenStore(database).add(_new(**wanted))
    if as_json:
        click.echo(json.dumps({"name": wanted["name"], "token": token}))
    else:
        click.echo(token)
        tell(f"for whoever calls: {TOKEN_VARIABLE}=..., or --token-file FILE")
    return Status.DONE


def _new(name: str, principal: str | None, scopes: tuple[str, ...], expires: timedelta | None) -> Any:
    from service.access.principal import read_scopes
    from service.access.tokens import NewToken

    return NewToken(name, principal, read_scopes(scopes), expires)


@tokens.command()
@click.argument("name")
@state_option
@database_option
def remove(name: str, state_dir: str | None, database_url: str | None) -> int:
    """Forget a token; it is worth nothing from the next call on."""
    with open_database(state_dir, database_url) as database:
        from service.access.tokens import TokenStore

        store = TokenStore(database)
        store.remove(name)
        left = store.any()
    tell(f"token {name} is forgotten")
    if not left:
        tell("it was the last one: a server that only this machine can reach takes every call now")
    return Status.DONE


@tokens.command(name="list")
@json_option
@state_option
@database_option
def list_tokens(as_json: bool, state_dir: str | None, database_url: str | None) -> int:
    """List tokens: whose they are, what they allow, until when."""
    with open_database(state_dir, database_url) as database:
        from service.access.tokens import TokenStore

        found = TokenStore(database).all()
    if as_json:
        click.echo(json.dumps([_as_json(one) for one in found], indent=2))
    elif found:
        click.echo("\n".join(table.lines(("TOKEN", "PRINCIPAL", "SCOPES", "EXPIRES"), [_row(one) for one in found])))
    else:
        tell("there are no tokens; `shoal tokens add NAME` makes one")
    return Status.DONE


def _as_json(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "principal": token.principal.name,
        "scopes": sorted(token.principal.scopes),
        "create_time": token.create_time.isoformat(),
        "expire_time": None if token.expire_time is None else token.expire_time.isoformat(),
        "expired": token.expired,
    }


def _row(token: Token) -> tuple[str, ...]:
    until = "expired" if token.expired else _day(token.expire_time)
    return token.name, token.principal.name, " ".join(sorted(token.principal.scopes)), until


def _day(moment: datetime | None) -> str:
    return "never" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")
