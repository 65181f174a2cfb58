"""`shoal batch`: every model of a registry, each once, with a summary at the end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli import table
from service.cli.connect import ServerFlags, connected
from service.cli.errors import CommandError, InputError, Status
from service.cli.options import (
    BUDGET,
    job_options,
    pick,
    preprocessing_options,
    server_option,
    target_options,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.batch.board import Board
    from service.batch.prepare import Source
    from service.batch.run import Done
    from service.batch.summary import Summary
    from service.client import Client
    from service.registries import Entry, ModelSettings, Registry

_BUDGET_HELP: Final = "Latency to reach where a model names none of its own: a fraction of the original's, or a time."
_DATA_HELP: Final = "Folder or archive with the splits, as of `shoal optimize`, for models that name none of their own."
_REGISTER_HELP: Final = "MLflow: registered model that results go to; {name} stands for the source's."
_AGAIN_HELP: Final = "Try models again whose job failed by their own fault."


@dataclass(frozen=True)
class Request:
    """One `shoal batch`, as typed.

    Attributes:
        source: Which registry.
        out: Folder of the results.
        jobs: How many models to be at, at once.
        dry_run: Whether only to say what would be done.
        analyze: Whether a dry run asks the server too.
        retry: Whether models that failed by their own fault are tried again.
        as_json: Whether standard output is for a program.
    """

    source: str
    out: Path
    jobs: int
    dry_run: bool
    analyze: bool
    retry: bool
    as_json: bool


@click.command()
@click.argument("source")
@click.option("--budget", type=BUDGET, metavar="0.6x|12ms", help=_BUDGET_HELP)
@click.option("--data", type=click.Path(), metavar="DIR", help=_DATA_HELP)
@job_options
@preprocessing_options
@target_options
@click.option("--filter", "pattern", default="*", metavar="PATTERN", help="Only models of such names, like 'resnet*'.")
@click.option("--alias", help="MLflow: the version of each model with this alias.")
@click.option("--stage", help="MLflow: the versions of each model in this stage.")
@click.option("--tag", multiple=True, metavar="NAME=VALUE", help="MLflow: the versions with this tag; repeatable.")
@click.option("--tracking-uri", metavar="URI", help="MLflow: server or database. Default: MLFLOW_TRACKING_URI.")
@click.option("--register-as", default="{name}-shoal", show_default=True, metavar="NAME", help=_REGISTER_HELP)
@click.option("--result-alias", metavar="ALIAS", help="MLflow: alias for a result that met its budget.")
@click.option("--experiment", metavar="NAME", help="MLflow: experiment of the results' runs. Default: the source's.")
@click.option("--annotate", is_flag=True, help="MLflow: note on each source version, as tags, what came of it.")
@click.option("--jobs", type=whole(1, 64), default=2, show_default=True, help="How many models to be at, at once.")
@click.option("--out", type=click.Path(file_okay=False), default="shoal-batch", show_default=True, metavar="DIR",
              help="Folder of the results, the summary and the record of what was done.")  # fmt: skip
@click.option("--retry", is_flag=True, help=_AGAIN_HELP)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--analyze", is_flag=True, help="With --dry-run: let the server look at each new model.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
              help="Of standard output; json is one object a line.")  # fmt: skip
@server_option
def batch(**flags: Any) -> int:
    """Optimise every model of SOURCE, each once, and write one summary.

    SOURCE is mlflow or mlflow:NAME (a model registry), hf:FOLDER or hf:ORGANISATION/NAME, dir:FOLDER,
    manifest:FILE (YAML, JSON or TOML), or the path of a folder, model or manifest.

    Run it again after anything went wrong: what is done is not done again, jobs that the server still has are waited
    for, and the rest is begun. Ctrl-C leaves the jobs running.

    Exits with 0 when every budget is met, 3 when some are not, 2 when a model or flag cannot be used, 1 for anything
    else.
    """
    request = Request(
        flags["source"], Path(flags["out"]), flags["jobs"], flags["dry_run"], flags["analyze"], flags["retry"],
        flags["form"] == "json",
    )  # fmt: skip
    if request.analyze and not request.dry_run:
        raise InputError("--analyze belongs to --dry-run; without it every model is looked at anyway")
    try:
        from service.registries import RegistryError
    except ModuleNotFoundError as exc:
        raise CommandError(f"a batch needs {exc.name}, which is not installed; install shoal[batch]") from exc
    try:
        registry = _registry(request, flags)
        settings = _settings(flags)
        server: ServerFlags = pick(ServerFlags, flags)
        if request.dry_run:
            from service.cli.batchplan import dry_run

            return dry_run(request, registry, settings, server)
        return _run(request, registry, settings, server)
    except RegistryError as exc:
        raise InputError(*exc.lines) from exc


def _registry(request: Request, flags: dict[str, Any]) -> Registry:
    from service.registries import Selection, open_registry
    from service.registries.mlflow import MlflowOptions

    tags = []
    for each in flags["tag"]:
        name, equals, value = each.partition("=")
        if not equals:
            raise InputError(f"--tag {each} is no tag; write NAME=VALUE")
        tags.append((name, value))
    options = MlflowOptions(
        tracking_uri=flags["tracking_uri"],
        register_as=flags["register_as"],
        alias=flags["result_alias"],
        experiment=flags["experiment"],
        annotate=flags["annotate"],
        read_only=request.dry_run,
    )
    return open_registry(
        request.source, Selection(flags["pattern"], flags["alias"], flags["stage"], tuple(tags)), options
    )


def _settings(flags: dict[str, Any]) -> ModelSettings:
    """Returns what the flags say as settings, which have the same names but for the repeatable ones."""
    from pydantic import ValidationError

    from service.registries import ModelSettings
    from service.registries.settings import mistakes

    given = {name: flags[name] for name in ModelSettings.model_fields if name in flags}
    given |= {"options": flags["option"] or None, "text_columns": flags["text_column"] or None}
    given["no_finetune"] = flags["no_finetune"] or None
    try:
        return ModelSettings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as exc:
        raise InputError(*(one.message for one in mistakes(exc))) from exc


def found_in(registry: Registry) -> tuple[Entry, ...]:
    """Returns the models of a registry.

    Raises:
        InputError: There is none.
    """
    entries = registry.models()
    if not entries:
        raise InputError(f"there is no model to optimise in the {registry.source}; check what was selected")
    return entries


def _run(request: Request, registry: Registry, settings: ModelSettings, server: ServerFlags) -> int:
    from service.batch.board import open_board
    from service.batch.ledger import Ledger
    from service.batch.prepare import Source
    from service.batch.summary import summarise, write_summary

    _check_templates()
    entries = found_in(registry)
    begun = _now()
    with Ledger(request.out) as ledger, open_board(as_json=request.as_json) as board:
        board.begin(entries)
        source = Source(registry, settings, registry.defaults, ledger)
        with connected(server, board.say) as client:
            done = _done(request, client, source, board, entries)
    summary = summarise(registry.source, (begun, _now()), done)
    data, page = write_summary(summary, request.out)
    if request.as_json:
        click.echo(
            json.dumps({"event": "summary", "summary": str(data), "page": str(page), **summary.totals.model_dump()})
        )
    else:
        click.echo(text(summary, page))
    return status(done)


def _done(request: Request, client: Client, source: Source, board: Board, entries: Sequence[Entry]) -> tuple[Done, ...]:
    from service.batch.run import run
    from service.batch.work import Place

    place = Place(source, client, source.ledger, request.out, board, request.retry)
    try:
        return run(place, entries, request.jobs)
    except KeyboardInterrupt:
        raise CommandError(
            "left; jobs that the server has go on. The same command goes on from here and does nothing twice"
        ) from None


def _check_templates() -> None:
    try:
        import jinja2  # noqa: F401 - said now rather than in the morning
    except ModuleNotFoundError as exc:
        raise CommandError("the summary needs jinja2, which is not installed; install shoal[batch]") from exc


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def status(done: Sequence[Done]) -> Status:
    """Returns what to exit with: the worst of all models."""
    outcomes = [one.outcome for one in done]
    if any(
        one.verdict in {"FAILED", "CANCELLED", "EXPIRED", "UNREACHED"} and one.blame != "caller" for one in outcomes
    ):
        return Status.FAILED
    if any(one.verdict in {"REFUSED", "FAILED"} for one in outcomes):
        return Status.USAGE
    return Status.DONE if all(one.verdict == "BUDGET_MET" for one in outcomes) else Status.BUDGET_NOT_MET


def text(summary: Summary, page: Path) -> str:
    """Returns the summary as a short text for people."""
    from service.batch.board import WORDS
    from service.batch.summary import ordered

    rows = []
    for one in (each.outcome for each in ordered(summary)):
        speed = f"{one.speedup.value:.2f}x" if one.speedup is not None else ""
        change = ""
        if one.quality is not None and one.quality.unit == "fraction":
            change = f"{one.quality.change.value:+.2f} points"
        rows.append((one.label, WORDS[one.verdict], speed, change, one.published or one.folder or one.reason))
    totals = summary.totals
    lines = table.lines(("MODEL", "OUTCOME", "SPEED", "ACCURACY", "WHERE"), rows)
    verdict = f"{totals.budget_met} of {totals.models} met their budget; {totals.fresh} worked on now"
    return "\n".join([*lines, "", f"{verdict}. Summary: {page}"])
