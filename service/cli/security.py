"""How a command speaks with its server: TLS, and the token that says who calls."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from service.cli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

F = TypeVar("F", bound="Callable[..., Any]")

TOKEN_VARIABLE: Final = "SHOAL_TOKEN"  # noqa: S105 - the variable's name
_KEY: Final = "shoal.security"
_FILE: Final = click.Path(dir_okay=False)


@dataclass(frozen=True)
class Security:
    """What the user says of it.

    Attributes:
        tls: Speak TLS.
        tls_ca: Authorities to trust; implies `tls`, as the next two do.
        tls_cert: The caller's own certificate.
        tls_key: Its key.
        token_file: File with the token; None to look into the environment.
        insecure: The token may be sent in plain text.
    """

    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    token_file: str | None = None
    insecure: bool = False

    def token(self) -> str | None:
        """Returns the token, from the file or the environment; None where there is neither."""
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE, "").strip() or None
        found = Path(self.token_file).read_text(errors="replace").strip()
        if not found:
            raise InputError(f"'{self.token_file}' is empty; wanted is a token as `shoal tokens add` prints it")
        return found

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Returns what TLS needs; None for plain text."""
        files = [None if name is None else Path(name) for name in (self.tls_ca, self.tls_cert, self.tls_key)]
        if not self.tls and files == [None, None, None]:
            return None
        from service.client import tls_credentials

        try:
            return tls_credentials(*files)
        except ValueError as exc:
            raise InputError(str(exc)) from exc


def given() -> Security:
    """Returns what the command line of the present command says; the default outside of commands."""
    context = click.get_current_context(silent=True)
    return Security(**({} if context is None else context.meta.get(_KEY, {})))


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Notes an option, so that `given` finds it and no command has to pass it on."""
    context.meta.setdefault(_KEY, {})[parameter.name] = value
    return value


def security_options(command: F) -> F:
    """Adds the options that `given` reads."""
    token = click.option(
        "--token-file",
        type=_FILE,
        metavar="FILE",
        envvar="SHOAL_TOKEN_FILE",
        expose_value=False,
        callback=_keep,
        help=f"File with the token that says who calls; or set {TOKEN_VARIABLE}.",
    )
    return tls_options(token(command))


def tls_options(command: F) -> F:
    """Adds the options that `given` reads, but for the token."""
    for decorate in (
        click.option("--insecure", is_flag=True, envvar="SHOAL_INSECURE", expose_value=False, callback=_keep,
                     help="Send the token without TLS too; for networks that are trusted."),
        click.option("--tls-key", type=_FILE, metavar="FILE", envvar="SHOAL_TLS_KEY", expose_value=False,
                     callback=_keep, help="Its private key, PEM."),
        click.option("--tls-cert", type=_FILE, metavar="FILE", envvar="SHOAL_TLS_CERT", expose_value=False,
                     callback=_keep, help="Your own certificate, PEM, for a server that asks for one."),
        click.option("--tls-ca", type=_FILE, metavar="FILE", envvar="SHOAL_TLS_CA", expose_value=False,
                     callback=_keep, help="Authorities to trust, PEM; implies --tls."),
        click.option("--tls", is_flag=True, envvar="SHOAL_TLS", expose_value=False, callback=_keep,
                     help="Speak TLS with the server."),
    ):  # fmt: skip
        command = decorate(command)
    return command
