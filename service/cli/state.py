"""Commands that work on the state folder itself, whether a server runs on it or not."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from service.cli.connect import ServerFlags
from service.cli.errors import CommandError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.database.database import Database

F = TypeVar("F", bound="Callable[..., Any]")


def state_option(command: F) -> F:
    """Adds `--state-dir`."""
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False),
        envvar="SHOAL_STATE_DIR",
        help="State folder of the server of this machine. Default: in the user's data folder.",
    )(command)


def database_option(command: F) -> F:
    """Adds `--database-url`."""
    return click.option(
        "--database-url", metavar="URL", envvar="SHOAL_DATABASE_URL", help="Default: SQLite in the state folder."
    )(command)


@contextmanager
def open_database(state_dir: str | None, url: str | None = None) -> Iterator[Database]:
    """Yields the database of a state folder, which is made if it is missing.

    Args:
        state_dir: The folder; None for the user's.
        url: Where the database is if it is not in there.

    Raises:
        CommandError: What was to be done was refused; or this installation cannot do it.
    """
    try:
        from service.database.database import Database
        from service.errors import InvalidRequestError, ServiceError
        from service.settings import ServerSettings
    except ModuleNotFoundError as exc:
        raise CommandError(f"this needs {exc.name}, which is not installed; install shoal[server]") from exc
    state = ServerFlags(state_dir=state_dir).state
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        database = Database(ServerSettings(state_dir=state, database_url=url).database)
        try:
            yield database
        finally:
            database.close()
    except InvalidRequestError as exc:
        raise InputError(*(f"{each.field}: {each.description}" for each in exc.violations)) from exc
    except ServiceError as exc:
        raise CommandError(str(exc)) from exc
