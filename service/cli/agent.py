"""`shoal agent` on a device, and `shoal agents` on the server's machine: who measures for a server."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli import table
from service.cli.connect import tell
from service.cli.errors import CommandError, InputError, Status
from service.cli.options import json_option, log_format_option
from service.cli.security import given, tls_options
from service.cli.state import open_database, state_option
from service.cli.watched import started_export

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.agent.settings import AgentSettings
    from protos.shoal.v1.device_agents_pb2 import Work
    from service.devices.agents import AgentStore

_LOG = logging.getLogger(__name__)
TOKEN_VARIABLE: Final = "SHOAL_AGENT_TOKEN"  # noqa: S105 - the variable's name


@click.command()
@click.option("--server", required=True, metavar="HOST:PORT", envvar="SHOAL_SERVER", help="The server to work for.")
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False), envvar="SHOAL_AGENT_TOKEN_FILE",
              help=f"File with the token from `shoal agents add`; or set {TOKEN_VARIABLE}.")  # fmt: skip
@tls_options
@click.option("--state-dir", type=click.Path(file_okay=False), envvar="SHOAL_AGENT_STATE_DIR",
              help="For files on their way. Default: in the user's cache folder.")  # fmt: skip
@click.option("--cool-below", type=float, default=75.0, show_default=True, metavar="CELSIUS",
              help="Measure only when the device is cooler than this; 0 measures at once.")  # fmt: skip
@click.option("--sandbox", type=click.Choice(("auto", "required", "off")), default="auto", show_default=True,
              help="Confine work by what this system offers, only if it offers all, or not at all.")  # fmt: skip
@log_format_option
def agent(**flags: Any) -> int:
    """Measure and run networks on this machine for a server elsewhere.

    The agent calls the server, never the other way round. One measurement at a time; stop it with Ctrl-C at any moment,
    and what it was at goes on when it is started again.
    """
    from service.watching import logs

    settings = _settings(flags)
    # Children are programs of their own, never forks: gRPC's handlers for those are of no use, and talkative.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    logs.configure(flags["log_format"])
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        from deploy.agent.agent import run_agent
        from deploy.errors import DeployError
    except ModuleNotFoundError as exc:
        raise CommandError(f"an agent needs {exc.name}, which is not installed; install shoal[agent]") from exc
    end = started_export("shoal-agent")
    try:
        # What is said for people is logged where machines read.
        run_agent(settings, stop, tell if flags["log_format"] == "text" else _LOG.info, _watched)
    except DeployError as exc:
        raise CommandError(str(exc)) from exc
    finally:
        end()
    return Status.DONE


@contextmanager
def _watched(work: Work) -> Iterator[None]:
    """Surrounds a piece of work with what logs and traces say of it."""
    from service.watching.place import parse
    from service.watching.spans import spanning
    from service.watching.surroundings import surrounded

    attributes: dict[str, str | int | float | bool] = {"shoal.work": work.kind, "shoal.lease": work.lease}
    with surrounded(work=work.id), spanning("agent work", parse(work.traceparent), attributes=attributes):
        yield


def _settings(flags: dict[str, Any]) -> AgentSettings:
    from deploy.agent.settings import AgentSettings
    from service.client.security import check_exposure, check_token

    token, asked = _token(flags["token_file"]), given()
    credentials = asked.credentials()
    try:
        check_token(token)
        if credentials is None and not asked.insecure:
            check_exposure(flags["server"])
    except ValueError as exc:
        raise InputError(str(exc)) from exc
    return AgentSettings(
        server=flags["server"],
        token=token,
        folder=Path(flags["state_dir"]) if flags["state_dir"] else _cache_folder(),
        credentials=credentials,
        cool_below=flags["cool_below"] or None,
        sandbox=flags["sandbox"],
    )


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "shoal-agent"


def _token(file: str | None) -> str:
    token = os.environ.get(TOKEN_VARIABLE, "") if file is None else Path(file).read_text()
    if not token.strip():
        raise InputError(f"an agent needs a token: --token-file, or {TOKEN_VARIABLE}; `shoal agents add` makes one")
    return token.strip()


@click.group()
def agents() -> None:
    """Decide which agents may work for the server of this machine.

    These commands work on the server's state folder, whether the server runs or not.
    """


@agents.command()
@click.argument("name")
@json_option
@state_option
def add(name: str, as_json: bool, state_dir: str | None) -> int:
    """Make an agent known and print its token, once.

    Jobs name its device as agent/NAME.
    """
    with _store(state_dir) as store:
        token = store.add(name)
    if as_json:
        click.echo(json.dumps({"name": name, "device": f"agent/{name}", "token": token}))
    else:
        click.echo(token)
        tell(f"on the device: {TOKEN_VARIABLE}=... shoal agent --server HOST:PORT; jobs name it agent/{name}")
    return Status.DONE


@agents.command()
@click.argument("name")
@state_option
def remove(name: str, state_dir: str | None) -> int:
    """Forget an agent; its token is worth nothing from now on."""
    with _store(state_dir) as store:
        store.remove(name)
    tell(f"agent/{name} is forgotten")
    return Status.DONE


@agents.command(name="list")
@json_option
@state_option
def list_agents(as_json: bool, state_dir: str | None) -> int:
    """List the agents that the server knows."""
    with _store(state_dir) as store:
        found = store.all()
    if as_json:
        seen = {one.name: None if one.last_seen is None else one.last_seen.isoformat() for one in found}
        click.echo(json.dumps([{"name": name, "last_seen": moment} for name, moment in seen.items()]))
    elif found:
        rows = [
            (
                one.target,
                "online" if one.online else "offline",
                ", ".join(sorted({name for name, _ in one.runtimes})) or "-",
            )
            for one in found
        ]
        click.echo("\n".join(table.lines(("AGENT", "STATE", "RUNTIMES"), rows)))
    else:
        tell("no agent is known; `shoal agents add NAME` makes one")
    return Status.DONE


@contextmanager
def _store(state_dir: str | None) -> Iterator[AgentStore]:
    """Yields the agents in a state folder."""
    with open_database(state_dir) as database:
        from service.devices.agents import AgentStore

        yield AgentStore(database)
