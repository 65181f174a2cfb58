"""`shoal devices`: what may be named with --target, and how it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from service.cli import table
from service.cli.connect import ServerFlags, connected
from service.cli.errors import Status
from service.cli.options import json_option, server_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@click.command()
@json_option
@server_option
def devices(as_json: bool, server: str | None, state_dir: str | None) -> int:
    """List the devices that networks can be made fast on."""
    from google.protobuf.json_format import MessageToDict

    with connected(ServerFlags(server, state_dir), lambda _: None) as client:
        found: list[dict[str, Any]] = [
            MessageToDict(each, preserving_proto_field_name=True) for each in client.devices()
        ]
    click.echo(json.dumps(found, indent=2) if as_json else text(found))
    return Status.DONE


def text(found: Sequence[Mapping[str, Any]]) -> str:
    """Returns devices as text for people, one a line."""
    return "\n".join(
        table.lines(("DEVICE", "STATE", "RUNTIMES", "WAITING", "DESCRIPTION"), [_row(one) for one in found])
    )


def _row(device: Mapping[str, Any]) -> tuple[str, ...]:
    runtimes = ", ".join(f"{one['name']} {one.get('version', '')}".strip() for one in device.get("runtimes", []))
    degrees = device.get("health", {}).get("temperature_celsius")
    parts = [device.get("description", ""), f"{device.get('cores', 0)} cores"]
    parts += [] if degrees is None else [f"{degrees:.0f} °C"]
    state = str(device.get("state", "")).removeprefix("STATE_").lower()
    return device["name"], state, runtimes or "-", str(device.get("waiting", 0)), ", ".join(filter(None, parts))
