"""Which server a command talks to."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from service.client import Client


@dataclass(frozen=True)
class ServerFlags:
    """Where the server is.

    Attributes:
        server: `HOST:PORT`; None for the one of this machine.
        state_dir: State folder of the latter; None for the user's data folder.
    """

    server: str | None = None
    state_dir: str | None = None

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

    if flags.server is not None:
        with Client(flags.server) as client:
            yield client
        return
    from service.cli import embedded

    with embedded.running(flags.state, say) as address, Client(address) as client:
        yield client
