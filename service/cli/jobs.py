"""`shoal jobs`: what is known of jobs, and what can be done to them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from service.cli import figures, outcome, table
from service.cli.connect import ServerFlags, connected, tell
from service.cli.display import open_display
from service.cli.errors import CommandError, InputError, Status
from service.cli.listing import moment, newest, quiet, resource_name
from service.cli.options import json_option, pick, server_option, whole
from service.cli.triton import TritonFlags, check_triton, triton_options, write_triton

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protos.shoal.v1 import optimization_job_pb2 as job_pb


@click.group()
def jobs() -> None:
    """List, show, watch, cancel, download and delete jobs.

    JOB is an id or `optimizationJobs/ID`, as the list shows it.
    """


@jobs.command("list")
@click.option("--limit", type=whole(1, 100_000), default=50, show_default=True, help="Show at most so many.")
@json_option
@server_option
def list_jobs(limit: int, as_json: bool, server: str | None, state_dir: str | None) -> int:
    """List jobs, newest first."""
    with connected(ServerFlags(server, state_dir), quiet) as client:
        found = newest(client.list, limit)
    if as_json:
        click.echo(json.dumps([outcome.as_json(job) for job in found], indent=2))
    elif found:
        _print_table([_row(job) for job in found])
    else:
        tell("no jobs yet; `shoal optimize MODEL --budget 0.6x` makes one")
    return Status.DONE


def _row(job: job_pb.OptimizationJob) -> tuple[str, ...]:
    result = job.result if job.HasField("result") else None
    took = outcome.seconds(job)
    return (
        outcome.job_id(job),
        _state(job),
        (outcome.outcome_name(job) or "").lower().replace("_", " "),
        f"{result.speedup:.2f}x" if result else "",
        figures.clock(took) if took is not None else "",
        moment(job.create_time),
        job.display_name,
    )


def _state(job: job_pb.OptimizationJob) -> str:
    name = outcome.state_name(job).lower()
    return name if job.HasField("end_time") else f"{name} {100 * job.progress.fraction:.0f} %"


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    for line in table.lines(("JOB", "STATE", "OUTCOME", "SPEED", "TOOK", "CREATED", "MODEL"), rows):
        click.echo(line)


@jobs.command()
@click.argument("job")
@json_option
@server_option
def show(job: str, as_json: bool, server: str | None, state_dir: str | None) -> int:
    """Show what is known of a job."""
    with connected(ServerFlags(server, state_dir), quiet) as client:
        found = client.get(_name(job))
    _print(found, as_json)
    return Status.DONE


@jobs.command()
@click.argument("job")
@json_option
@server_option
def watch(job: str, as_json: bool, server: str | None, state_dir: str | None) -> int:
    """Follow a job to its end; Ctrl-C leaves it running.

    Exits like `shoal optimize`.
    """
    from service.cli.follow import follow

    name = _name(job)
    with connected(ServerFlags(server, state_dir), tell) as client:
        known = client.get(name)
        try:
            with open_display(known.display_name or name, upload=False) as display:
                finished = follow(client, name, display)
        except KeyboardInterrupt:
            raise CommandError(
                f"left; the job goes on, `shoal jobs watch {outcome.job_id(known)}` follows it"
            ) from None
    _print(finished, as_json)
    return outcome.exit_status(finished)


@jobs.command()
@click.argument("job")
@json_option
@server_option
def cancel(job: str, as_json: bool, server: str | None, state_dir: str | None) -> int:
    """Ask for a job to be stopped."""
    with connected(ServerFlags(server, state_dir), quiet) as client:
        found = client.cancel(_name(job))
    if as_json:
        click.echo(json.dumps(outcome.as_json(found), indent=2))
    else:
        click.echo(f"{found.name}: {outcome.state_name(found).lower()}")
    return Status.DONE


@jobs.command("delete")
@click.argument("jobs_", nargs=-1, required=True, metavar="JOB...")
@click.option("--force", is_flag=True, help="Cancel those that are not finished, and wait for their end.")
@server_option
def delete_jobs(jobs_: tuple[str, ...], force: bool, server: str | None, state_dir: str | None) -> int:
    """Remove finished jobs for good, with their logs and files."""
    with connected(ServerFlags(server, state_dir), quiet) as client:
        for job in jobs_:
            client.delete(_name(job), force=force)
            click.echo(f"{_name(job)}: removed")
    return Status.DONE


@jobs.command()
@click.argument("job")
@click.option("--out", type=click.Path(file_okay=False), metavar="DIR", help="Default ./shoal-out/<job id>.")
@triton_options
@json_option
@server_option
def download(job: str, out: str | None, as_json: bool, **flags: Any) -> int:
    """Download the files that a job made."""
    from service.cli.fetch import fetch_artifacts

    triton = pick(TritonFlags, flags)
    check_triton(triton)
    with connected(pick(ServerFlags, flags), quiet) as client:
        found = client.get(_name(job))
        if not found.HasField("result"):
            state = outcome.state_name(found).lower()
            raise InputError(f"{found.name} has no files to download; it is {state}, wanted succeeded")
        paths = fetch_artifacts(client, found, Path(out or Path("shoal-out") / outcome.job_id(found)))
    place = write_triton(triton, paths)
    if as_json:
        click.echo(json.dumps({**outcome.as_json(found, paths), **outcome.triton_json(place)}, indent=2))
    else:
        for path in (*paths.values(), *(() if place is None else (place,))):
            click.echo(path)
    return Status.DONE


def _print(job: job_pb.OptimizationJob, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(outcome.as_json(job), indent=2))
        return
    click.echo(f"{job.name}  {job.display_name}".rstrip())
    click.echo(f"created {_ago(job.create_time.ToDatetime(UTC))}")
    click.echo(outcome.text(job))


def _ago(then: datetime) -> str:
    return f"{figures.clock((datetime.now(UTC) - then).total_seconds())} ago"


def _name(job: str) -> str:
    return resource_name("optimizationJobs", job)
