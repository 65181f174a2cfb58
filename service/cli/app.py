"""The command tree, and the boundary where every failure becomes one line and an exit status.

`shoal --help` must answer at once: command modules import click and the standard library only, the rest where it is
used.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from service.cli.agent import agent, agents
from service.cli.analyze import analyze
from service.cli.artifacts import artifacts
from service.cli.batch import batch
from service.cli.devices import devices
from service.cli.doctor import doctor
from service.cli.errors import CommandError, Status
from service.cli.health import health
from service.cli.jobs import jobs
from service.cli.latency_table import latency_table
from service.cli.measure import measure
from service.cli.optimize import optimize
from service.cli.serve import serve
from service.cli.strategies import strategies
from service.cli.tokens import tokens
from service.cli.verify import verify
from service.cli.version import installed_version, version

if TYPE_CHECKING:
    from service.client.errors import ShoalError

_CALLER_ERRORS = frozenset(
    {"InvalidArgumentError", "FailedPreconditionError", "NotFoundError", "AlreadyExistsError"},
)


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"shoal {installed_version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def shoal() -> None:
    r"""Make a network shallow enough to meet a latency budget, with proof measured on the file you get.

    \b
    shoal optimize resnet.pt2 --budget 0.6x --data ./images
    """


for _command in (
    optimize,
    batch,
    analyze,
    measure,
    verify,
    jobs,
    artifacts,
    devices,
    serve,
    health,
    tokens,
    agent,
    agents,
    strategies,
    latency_table,
    doctor,
    version,
):
    shoal.add_command(_command)


def run(arguments: list[str]) -> int:
    """Runs one command line.

    Args:
        arguments: Without the name of the program.

    Returns:
        The exit status: 0 done, 2 bad usage or input, 3 budget not met, 1 anything else.
    """
    try:
        return int(shoal.main(arguments, prog_name="shoal", standalone_mode=False) or 0)
    except (click.Abort, KeyboardInterrupt):
        return _fail(CommandError("interrupted"))
    except BrokenPipeError:  # `shoal jobs list | head`: the reader has all it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Status.DONE
    except Exception as exc:  # noqa: BLE001 - the outermost boundary: a user never meets a traceback
        return _fail(_as_command_error(exc))


def _fail(error: CommandError) -> int:
    for line in error.lines:
        click.echo(f"shoal: error: {line}", err=True)
    return error.status


def _as_command_error(error: Exception) -> CommandError:
    if isinstance(error, CommandError):
        return error
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return CommandError("a command is missing; `shoal --help` lists them", status=Status.USAGE)
    if isinstance(error, click.ClickException):
        return CommandError(_usage_message(error), status=Status.USAGE)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return CommandError(f"{where}{error.strerror or error}")
    from service.client.errors import ShoalError

    if isinstance(error, ShoalError):
        return _from_client(error)
    if os.environ.get("SHOAL_DEBUG"):
        raise error
    kind = type(error).__name__
    return CommandError(f"a bug in Shoal: {kind}: {error}; set SHOAL_DEBUG=1 to see where it happened, and report it")


def _usage_message(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message} (see `{context.command_path} --help`)" if context else message


def _from_client(error: ShoalError) -> CommandError:
    status = Status.USAGE if type(error).__name__ in _CALLER_ERRORS else Status.FAILED
    lines = [f"{each.field}: {each.description}" for each in error.violations]
    return CommandError(*(lines or [error.message]), status=status)
