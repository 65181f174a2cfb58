"""`shoal optimize`: the main road, from a model and a budget to a faster file and its report."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli import outcome, splits
from service.cli.connect import ServerFlags, connected, tell
from service.cli.display import Display, open_display
from service.cli.errors import CommandError, InputError, Status
from service.cli.interrupt import first_interrupt
from service.cli.options import (
    BUDGET,
    job_options,
    json_option,
    model_options,
    pick,
    preprocessing_options,
    server_option,
    target_options,
)
from service.cli.request import (
    JobFlags,
    ModelFlags,
    PreprocessingFlags,
    TargetFlags,
    Uploaded,
    check_model,
    job_spec,
    preprocessing,
)
from service.cli.triton import TritonFlags, check_triton, triton_options, write_triton

if TYPE_CHECKING:
    from protos.shoal.v1 import optimization_job_pb2 as job_pb
    from service.client import Client


@dataclass(frozen=True)
class Request:
    """One `shoal optimize`, as typed.

    Attributes:
        model: Which network.
        target: Where it will run.
        samples: How samples become inputs.
        job: What is wanted.
        data: The data folder.
        out: Where the files go; None for a folder named after the job.
        as_json: Whether standard output is for a program.
        detach: Whether to leave once the job is accepted.
        triton: Whether a Triton model repository is written too.
    """

    model: ModelFlags
    target: TargetFlags
    samples: PreprocessingFlags
    job: JobFlags
    data: str | None
    out: str | None
    as_json: bool
    detach: bool
    triton: TritonFlags


_BUDGET_HELP: Final = "Latency to reach: a fraction of the original's, or a time."
_DATA_HELP: Final = (
    "Folder, zip or tar with splits by name: train*, validation* or val*, test*; each a folder with one folder "
    "per class (or zip or tar of it), Parquet, Arrow, WebDataset shards, .npz, CSV, TSV or JSON lines."
)


@click.command()
@model_options
@click.option(
    "--budget",
    type=BUDGET,
    metavar="0.6x|12ms",
    required=True,
    help=_BUDGET_HELP,
)
@click.option("--data", type=click.Path(), metavar="DIR", help=_DATA_HELP)
@job_options
@preprocessing_options
@target_options
@click.option(
    "--out", type=click.Path(file_okay=False), metavar="DIR", help="Where the files go. Default ./shoal-out/<job id>."
)
@triton_options
@click.option("--detach", is_flag=True, help="Print the job's name and leave; `shoal jobs watch` follows it.")
@json_option
@server_option
def optimize(**flags: Any) -> int:
    """Make MODEL meet a latency budget.

    MODEL is a .pt2 file written by torch.export.save, an .onnx file (with its external data beside it, or a zip or tar
    of both), a folder (or a zip or tar of it) that transformers or diffusers saved, or a name: timm:NAME,
    torchvision:NAME, transformers:NAME or diffusers:NAME.

    Exits with 0 when the budget is met, 3 when it is not, 2 for bad input, 1 for anything else.
    """
    request = Request(
        pick(ModelFlags, flags), pick(TargetFlags, flags), pick(PreprocessingFlags, flags), pick(JobFlags, flags),
        flags["data"], flags["out"], flags["as_json"], flags["detach"], pick(TritonFlags, flags),
    )  # fmt: skip
    found = _check(request)
    with (
        open_display(_title(request), upload=True) as display,
        connected(pick(ServerFlags, flags), display.note) as client,
    ):
        job, paths = _run(client, request, found, display)
    place = write_triton(request.triton, paths) if paths is not None else None
    return _show(job, paths, request, place)


def _check(request: Request) -> splits.Splits:
    """Finds every mistake that can be found before a server is needed."""
    check_model(request.model)
    check_triton(request.triton)
    if request.detach and request.triton.triton is not None:
        raise InputError(
            "--detach leaves before there are files for --triton; use `shoal jobs download --triton` later"
        )
    preprocessing(request.samples)
    if len(request.samples.text_column) > 2:
        raise InputError(f"--text-column is given {len(request.samples.text_column)} times; a model reads one or two")
    if request.job.no_finetune and request.job.epochs:
        raise InputError(f"--no-finetune and --epochs {request.job.epochs} exclude each other; give one of them")
    if request.job.accuracy_floor is not None and request.job.quality_floor is not None:
        raise InputError("--accuracy-floor and --quality-floor bound the same figure; give one of them")
    return splits.find(Path(request.data)) if request.data is not None else splits.Splits(None, None)


def _title(request: Request) -> str:
    limit = request.job.budget
    wanted = f"{limit.fraction:g}x" if limit.fraction is not None else f"{limit.latency_ms:g} ms"
    return f"{request.model.label}: {wanted} at p{request.target.percentile or 50:g}, batch {request.target.batch or 1}"


def _run(
    client: Client, request: Request, found: splits.Splits, display: Display
) -> tuple[job_pb.OptimizationJob, dict[str, str] | None]:
    uploaded = _upload(client, request, found, display)
    spec = job_spec(request.model, request.target, request.samples, request.job, uploaded)
    display.note("creating the job")
    job = client.create(spec, display_name=request.model.label[:256])
    if request.detach:
        return job, None
    if ahead := _ahead(client, job):
        display.say(
            f"waiting for {ahead} unfinished job{'s' * (ahead > 1)} of this server; `shoal jobs list` shows them"
        )
    display.note(", ".join([request.model.label, *(path.name for path in (found.train, found.validation) if path)]))
    job = _await(client, job, display)
    if not job.HasField("result"):
        return job, None
    from service.cli.fetch import fetch_artifacts

    return job, fetch_artifacts(client, job, Path(request.out or Path("shoal-out") / outcome.job_id(job)))


def _ahead(client: Client, job: job_pb.OptimizationJob) -> int:
    """Returns how many unfinished jobs were created before this one, of the newest hundred."""
    return sum(not other.HasField("end_time") for other in islice(client.list(), 100) if other.name != job.name)


def _upload(client: Client, request: Request, found: splits.Splits, display: Display) -> Uploaded:
    from service.cli.send import send_model, send_split

    if found.unused is not None:
        display.say(f"{found.unused.name} is not used: {request.data} has a validation split")
    uploaded = send_model(client, request.model, display.note)
    train = send_split(client, found.train, display.note) if found.train else None
    validation = send_split(client, found.validation, display.note) if found.validation else None
    return replace(uploaded, train=train, validation=validation)


def _await(client: Client, job: job_pb.OptimizationJob, display: Display) -> job_pb.OptimizationJob:
    from service.cli.follow import follow
    from service.client import ShoalError

    def cancel() -> None:
        display.say("cancelling; press Ctrl-C again to leave the job to itself")
        try:
            client.cancel(job.name)
        except ShoalError as exc:
            display.say(f"not cancelled: {exc.message}")

    try:
        with first_interrupt(cancel):
            return follow(client, job.name, display)
    except KeyboardInterrupt:
        raise CommandError(f"left; `shoal jobs watch {outcome.job_id(job)}` follows the job") from None


def _show(
    job: job_pb.OptimizationJob, paths: dict[str, str] | None, request: Request, triton: Path | None = None
) -> int:
    if request.as_json:
        click.echo(json.dumps({**outcome.as_json(job, paths), **outcome.triton_json(triton)}, indent=2))
    if request.detach:
        if not request.as_json:
            click.echo(job.name)
        return Status.DONE
    if job.HasField("error"):
        tell(f"shoal: error: {job.error.message}")
    elif not request.as_json:
        click.echo(outcome.text(job, paths, triton))
    return outcome.exit_status(job)
