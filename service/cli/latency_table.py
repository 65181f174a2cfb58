"""`shoal latency-table`: the latencies of single operators that were measured for jobs on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from service.cli import figures, table
from service.cli.connect import ServerFlags, tell
from service.cli.errors import CommandError, Status
from service.cli.options import json_option

if TYPE_CHECKING:
    from deploy.cache import CacheEntry, Context

_STATE_HELP = "State folder of the server of this machine. Default: in the user's data folder."


@click.group("latency-table")
def latency_table() -> None:
    """Show or clear the measured latencies of this machine.

    Jobs measure an operator once and use the figure again; clear the table when the machine has changed.
    """


@latency_table.command()
@json_option
@click.option("--state-dir", type=click.Path(file_okay=False), envvar="SHOAL_STATE_DIR", help=_STATE_HELP)
def show(as_json: bool, state_dir: str | None) -> int:
    """Show every operator's latency."""
    from deploy.cache import list_cache
    from deploy.errors import CacheError

    path = _path(state_dir)
    try:
        entries = list_cache(path)
    except CacheError as exc:
        raise CommandError(str(exc)) from exc
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
    elif entries:
        click.echo(text(entries))
    else:
        tell(f"nothing was measured yet; {path} is empty")
    return Status.DONE


@latency_table.command()
@json_option
@click.option("--state-dir", type=click.Path(file_okay=False), envvar="SHOAL_STATE_DIR", help=_STATE_HELP)
def clear(as_json: bool, state_dir: str | None) -> int:
    """Forget every operator's latency; the next job measures again."""
    from deploy.cache import clear_cache
    from deploy.errors import CacheError

    try:
        count = clear_cache(_path(state_dir))
    except CacheError as exc:
        raise CommandError(str(exc)) from exc
    click.echo(json.dumps({"forgotten": count}) if as_json else f"forgot {count} latencies")
    return Status.DONE


def text(entries: tuple[CacheEntry, ...]) -> str:
    """Returns the table as text for people, one block per device, runtime, precision, threads and batch."""
    blocks = []
    for context, group in groupby(entries, key=lambda entry: entry.context):
        rows = [(figures.significant(1e3 * each.seconds), each.measured_at, each.key) for each in group]
        blocks.append("\n".join([_title(context), *table.lines(("MS", "MEASURED", "OPERATOR"), rows)]))
    return "\n\n".join(blocks)


def _title(context: Context) -> str:
    threads = f"{context.threads} thread{'s' if context.threads > 1 else ''}"
    device = context.device.replace("|", ", ")
    return f"{device}: {context.runtime} {context.version}, {context.precision}, {threads}, batch {context.batch}"


def _path(state_dir: str | None) -> Path:
    return ServerFlags(state_dir=state_dir).state / "cache" / "latency.sqlite"
