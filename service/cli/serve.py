"""`shoal serve`: runs a server in the foreground."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli.connect import ServerFlags, tell
from service.cli.errors import CommandError, InputError, Status
from service.cli.options import OPTION, log_format_option, whole
from service.cli.watched import started_export

if TYPE_CHECKING:
    from collections.abc import Callable

    from service.settings import ServerSettings

_TAKEN_APART: Final = ("data_root", "settings")
_FILE: Final = click.Path(dir_okay=False)
DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
WEB_ADDRESS: Final = "127.0.0.1:50080"
_LOG = logging.getLogger(__name__)
_THIS_MACHINE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what to connect to instead


@click.command()
@click.option("--address", default=DEFAULT_ADDRESS, show_default=True, metavar="HOST:PORT", envvar="SHOAL_ADDRESS",
              help="Where to listen; port 0 takes a free one.")  # fmt: skip
@click.option("--state-dir", type=click.Path(file_okay=False), envvar="SHOAL_STATE_DIR",
              help="Where jobs, files and measured latencies are kept. Default: the user's data folder.")  # fmt: skip
@click.option(
    "--workers",
    type=whole(1, 256),
    default=1,
    show_default=True,
    help="Jobs that run at the same time.",
)
@click.option("--data-root", type=click.Path(exists=True, file_okay=False), multiple=True, metavar="DIR",
              help="Folder that jobs may read data from; repeatable.")  # fmt: skip
@click.option("--database-url", metavar="URL", envvar="SHOAL_DATABASE_URL", help="Default: SQLite in the state folder.")
@click.option("--storage-url", metavar="URL", envvar="SHOAL_STORAGE_URL", help="Default: a folder in the state folder.")
@click.option("--tls-cert", type=_FILE, metavar="FILE", envvar="SHOAL_SERVE_TLS_CERT",
              help="Certificate chain, PEM; read again when it changes.")  # fmt: skip
@click.option("--tls-key", type=_FILE, metavar="FILE", envvar="SHOAL_SERVE_TLS_KEY", help="Its private key, PEM.")
@click.option("--tls-client-ca", type=_FILE, metavar="FILE", envvar="SHOAL_SERVE_TLS_CLIENT_CA",
              help="Ask clients for certificates that one of these authorities signed, PEM.")  # fmt: skip
@click.option("--tls-client-names", is_flag=True, help="Take who calls from the common name of their certificate.")
@click.option("--insecure-remote", is_flag=True, help="Listen on more than this machine without TLS; tokens can be "
              "read on their way, so the network has to be trusted.")  # fmt: skip
@click.option("--allow-remote", is_flag=True, hidden=True, help="The former name of --insecure-remote.")
@click.option("--reflection/--no-reflection", default=True, help="Tell callers which services there are. Default: do.")
@click.option("--metrics-address", metavar="HOST:PORT", envvar="SHOAL_METRICS_ADDRESS",
              help="Where Prometheus finds metrics over HTTP, such as 127.0.0.1:9464. Default: nowhere.")  # fmt: skip
@click.option("--web", "web_address", is_flag=False, flag_value=WEB_ADDRESS, metavar="[HOST:PORT]", envvar="SHOAL_WEB",
              help=f"Show jobs and devices to browsers there; {WEB_ADDRESS} if no address is given.")  # fmt: skip
@log_format_option
@click.option("--set", "settings", type=OPTION, multiple=True,
              help="Any other setting of service/settings.py, like principal_uploads=20; repeatable.")  # fmt: skip
@click.option("--embedded", is_flag=True, hidden=True, help="Stop when no command uses the server any more.")
@click.option("--address-fd", type=int, hidden=True, help="Write the address to this file descriptor.")
def serve(embedded: bool, address_fd: int | None, state_dir: str | None, **flags: Any) -> int:
    """Run a server until it is interrupted.

    Commands of the same user on the same machine find it by themselves if it uses the default state folder.
    """
    state = ServerFlags(state_dir=state_dir).state
    settings = _settings(state, flags)
    if settings.allow_remote and settings.tls_cert is None:
        tell("--allow-remote is called --insecure-remote now: without TLS, tokens can be read on their way")

    def ready(listening: str) -> None:
        from service.cli import embedded as machine_wide

        address = reachable(listening)
        machine_wide.announce(state, address)
        # What is said for people is logged where machines read.
        say = tell if settings.log_format == "text" else _LOG.info
        say(f"serving on {listening}, state in {state}")
        if address_fd is not None:
            with os.fdopen(address_fd, "w") as answer:
                answer.write(f"{address}\n")
        if embedded:
            machine_wide.stop_when_unused_in_background(state, address)

    _serve(settings, ready)
    return Status.DONE


def reachable(address: str) -> str:
    """Returns where a client on the same machine finds a server that listens on `address`."""
    host, _, port = address.rpartition(":")
    return f"{_THIS_MACHINE[host]}:{port}" if host in _THIS_MACHINE else address


def _settings(state: Path, flags: dict[str, Any]) -> ServerSettings:
    from pydantic import ValidationError

    from service.settings import ServerSettings

    others = dict(flags["settings"])
    values = {name: value for name, value in flags.items() if value is not None and name not in _TAKEN_APART}
    if twice := sorted(others.keys() & {*flags, "data_roots", "state_dir"}):
        raise InputError(f"--set {twice[0]}: has an option of its own; see `shoal serve --help`")
    try:
        return ServerSettings(state_dir=state, data_roots=flags["data_root"], **values, **others)
    except ValidationError as exc:
        raise InputError(*(_problem(each, others) for each in exc.errors())) from exc


def _problem(error: Any, others: dict[str, Any]) -> str:
    where = "".join(str(part) for part in error["loc"][:1])
    option = f"--set {where}: " if where in others else f"--{where.replace('_', '-')}: " if where else ""
    return option + str(error["msg"]).removeprefix("Value error, ")


def _serve(settings: ServerSettings, ready: Callable[[str], None]) -> None:
    try:
        from service.errors import ServiceError
        from service.server import serve as run_server
        from service.watching import logs
    except ModuleNotFoundError as exc:
        raise CommandError(f"a server needs {exc.name}, which is not installed; install shoal[server]") from exc
    logs.configure(settings.log_format)
    stop = started_export("shoal-server")
    try:
        run_server(settings, ready)
    except ServiceError as exc:
        raise CommandError(str(exc)) from exc
    finally:
        stop()
