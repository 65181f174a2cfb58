"""`shoal doctor`: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from service.cli.connect import ServerFlags
from service.cli.errors import Status
from service.cli.options import json_option
from service.cli.security import given, security_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from service.client.channel import Access
    from service.doctor.finding import Check, Finding
    from service.settings import ServerSettings

_WIDTH: Final = 4


@click.command()
@json_option
@click.option("--state-dir", type=click.Path(file_okay=False), envvar="SHOAL_STATE_DIR",
              help="State folder of a server on this machine. Default: in the user's data folder.")  # fmt: skip
@click.option("--database-url", metavar="URL", envvar="SHOAL_DATABASE_URL", help="As for `shoal serve`.")
@click.option("--storage-url", metavar="URL", envvar="SHOAL_STORAGE_URL", help="As for `shoal serve`.")
@click.option("--server", metavar="HOST:PORT", envvar="SHOAL_SERVER", help="Look at this server as well.")
@security_options
def doctor(as_json: bool, server: str | None, **folders: str | None) -> int:
    """Look at what works here: packages, runtimes, GPU, database, storage, clocks.

    Exits with 1 if anything fails that Shoal cannot do without. Changes nothing but for files that it removes again.
    """
    from service.doctor.finding import Level, examine

    found = [one for area, check in _checks(folders, server) for one in examine(area, check)]
    failed = sum(one.level is Level.FAIL for one in found)
    if as_json:
        click.echo(json.dumps({"healthy": not failed, "findings": [asdict(one) for one in found]}, indent=2))
    else:
        click.echo(text(found))
    return Status.FAILED if failed else Status.DONE


def text(found: Sequence[Finding]) -> str:
    """Returns findings as text for people, with a sum at the end."""
    lines: list[str] = []
    for one in found:
        lines.append(f"{one.level:<{_WIDTH}}  {one.area}: {one.name}: {one.found}")
        lines += [f"{'':<{_WIDTH}}    {more}" for more in (one.meaning, one.advice and f"-> {one.advice}") if more]
    counts = [f"{sum(one.level == level for one in found)} {level}" for level in ("ok", "warn", "fail")]
    return "\n".join([*lines, ", ".join(counts)])


def _checks(folders: Mapping[str, str | None], server: str | None) -> list[tuple[str, Check]]:
    """Returns what to look at, in order."""
    return [
        *_of_installation(),
        *_of_state(folders),
        *_of_machine(),
        *([] if server is None else [("server", lambda: _server(server))]),
    ]


def _of_installation() -> list[tuple[str, Check]]:
    from service.doctor import packages, runtimes

    return [
        ("packages", packages.look_at_python),
        ("packages", packages.look_at_packages),
        ("traces", packages.look_at_traces),
        ("runtimes", runtimes.look_at_runtimes),
        ("gpu", runtimes.look_at_gpu),
    ]


def _of_state(folders: Mapping[str, str | None]) -> list[tuple[str, Check]]:
    from service.doctor import state

    return [
        ("database", lambda: state.look_at_database(_settings(folders))),
        ("storage", lambda: state.look_at_store(_settings(folders))),
        ("storage", lambda: state.look_at_disk(_settings(folders))),
    ]


def _settings(folders: Mapping[str, str | None]) -> ServerSettings:
    """Returns where a server would keep its things; called within a check, as packages may be missing."""
    from service.settings import ServerSettings

    state = ServerFlags(state_dir=folders["state_dir"]).state
    return ServerSettings(state_dir=state, database_url=folders["database_url"], storage_url=folders["storage_url"])


def _of_machine() -> list[tuple[str, Check]]:
    from service.doctor import machine, sandbox

    return [
        ("machine", machine.look_at_machine),
        ("clock", machine.look_at_clock),
        ("timing", machine.look_at_turn),
        ("sandbox", sandbox.look_at_sandbox),
    ]


def _server(address: str) -> Iterator[Finding]:
    from service.doctor.server import look_at_server

    return look_at_server(address, _access)


def _access() -> Access:
    from service.client.channel import Access

    security = given()
    return Access(security.token(), security.credentials(), security.insecure)
