"""`shoal strategies`: what may be named with --strategy, and which options each takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from service.cli import table
from service.cli.connect import ServerFlags, connected
from service.cli.errors import Status
from service.cli.options import json_option, server_option

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command()
@json_option
@server_option
def strategies(as_json: bool, server: str | None, state_dir: str | None) -> int:
    """List the strategies and their options."""
    from google.protobuf.json_format import MessageToDict

    with connected(ServerFlags(server, state_dir), lambda _: None) as client:
        found: list[dict[str, Any]] = [
            {
                "name": each.name,
                "summary": each.summary,
                "options_schema": MessageToDict(each.options_schema),
            }
            for each in client.strategies()
        ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return Status.DONE
    click.echo("\n\n".join(text(each) for each in found))
    return Status.DONE


def text(strategy: Mapping[str, Any]) -> str:
    """Returns a strategy and its options as text for people, each option as it is written with its default."""
    rows = [
        (f"  --option {name}{_default(option)}", " ".join(str(option.get("description", "")).split()))
        for name, option in strategy["options_schema"].get("properties", {}).items()
    ]
    lines = table.lines(("  OPTION=DEFAULT", "MEANING"), rows) if rows else []
    return "\n".join([f"{strategy['name']}: {strategy['summary']}", *lines])


def _default(option: Mapping[str, Any]) -> str:
    return f"={json.dumps(_whole(option['default']))}" if "default" in option else ""


def _whole(value: Any) -> Any:
    """Undoes what google.protobuf.Struct does to whole numbers: it only knows floating-point ones."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return value
