"""`shoal artifacts`: the files that are stored on a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from service.cli import table
from service.cli.connect import ServerFlags, connected, tell
from service.cli.errors import Status
from service.cli.listing import moment, newest, quiet, resource_name
from service.cli.options import json_option, server_option, whole

if TYPE_CHECKING:
    from protos.shoal.v1 import model_optimizer_pb2 as pb


@click.group()
def artifacts() -> None:
    """List and delete stored files: what was uploaded, and what jobs made.

    ARTIFACT is an id or `artifacts/ID`, as the list shows it.
    """


@artifacts.command("list")
@click.option("--limit", type=whole(1, 100_000), default=50, show_default=True, help="Show at most so many.")
@json_option
@server_option
def list_artifacts(limit: int, as_json: bool, server: str | None, state_dir: str | None) -> int:
    """List your files, newest first."""
    with connected(ServerFlags(server, state_dir), quiet) as client:
        found = newest(client.artifacts, limit)
    if as_json:
        click.echo(json.dumps([_as_json(artifact) for artifact in found], indent=2))
    elif found:
        for line in table.lines(("ARTIFACT", "KIND", "BYTES", "CREATED", "FILE"), [_row(each) for each in found]):
            click.echo(line)
    else:
        tell("no files yet")
    return Status.DONE


@artifacts.command("delete")
@click.argument("artifacts_", nargs=-1, required=True, metavar="ARTIFACT...")
@server_option
def delete_artifacts(artifacts_: tuple[str, ...], server: str | None, state_dir: str | None) -> int:
    """Remove uploaded files for good; what a job made goes with it, by `shoal jobs delete`."""
    with connected(ServerFlags(server, state_dir), quiet) as client:
        for artifact in artifacts_:
            name = resource_name("artifacts", artifact)
            client.delete_artifact(name)
            click.echo(f"{name}: removed")
    return Status.DONE


def _row(artifact: pb.Artifact) -> tuple[str, ...]:
    return (
        artifact.name.rpartition("/")[2],
        _kind(artifact),
        str(artifact.size_bytes),
        moment(artifact.create_time),
        artifact.filename,
    )


def _as_json(artifact: pb.Artifact) -> dict[str, str | int]:
    return {
        "name": artifact.name,
        "kind": _kind(artifact),
        "filename": artifact.filename,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "create_time": artifact.create_time.ToJsonString(),
    }


def _kind(artifact: pb.Artifact) -> str:
    from protos.shoal.v1 import model_optimizer_pb2 as pb

    return pb.ArtifactKind.Name(artifact.kind).removeprefix("ARTIFACT_KIND_").lower()
