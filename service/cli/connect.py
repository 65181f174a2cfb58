"""Which server a command talks to."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli.errors import InputError
from service.cli.security import Security, given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.client import Client


@dataclass(frozen=True)
class ServerFlags:
    """Where the server is.

    Attributes:
        server: `HOST:PORT`; None for the one of this machine.
        state_dir: State folder of the latter; None for the user's data folder.
        security: How to speak with it. Default: as the command line of the present command says.
    """

    server: str | None = None
    state_dir: str | None = None
    security: Security = field(default_factory=given)

    @property
    def state(self) -> Path:
        """State folder of the server of this machine."""
        from service.cli import embedded

        return Path(self.state_dir).absolute() if self.state_dir else embedded.default_state_folder()


def tell(text: str) -> None:
    """Prints a line on standard error."""
    click.echo(text, err=True)


@contextmanager
def connected(flags: ServerFlags, say: Callable[[str], None] = tell) -> Iterator[Client]:
    """Yields a client of the server that was named, or of the server of this machine, which is started if need be.

    Args:
        flags: Where the server is.
        say: Told what takes a moment.
    """
    from service.client import Client

    security = flags.security
    credentials = security.credentials()
    if flags.server is not None:
        token = security.token()
        with _checked(Client, flags.server, token=token, credentials=credentials, insecure=security.insecure) as client:
            yield client
        return
    from service.cli import embedded

    with embedded.running(flags.state, say) as address:
        # Who may read the state folder is the server's operator, and never leaves this machine.
        token = embedded.operator_token(flags.state)
        with Client(address, token=token, credentials=credentials, insecure=True) as client:
            yield client


def _checked(make: Callable[..., Client], address: str, **access: Any) -> Client:
    try:
        return make(address, **access)
    except ValueError as exc:
        raise InputError(str(exc)) from exc
