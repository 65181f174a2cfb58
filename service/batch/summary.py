"""The summary of a batch: `summary.json` for programs, `summary.html` for people, both from the same record."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from service.batch.outcome import ModelOutcome
from service.batch.plot import Plot, draw
from service.cli.version import installed_version

if TYPE_CHECKING:
    from jinja2 import Environment

    from service.batch.run import Done

SCHEMA_VERSION: Final = "1.1"
_FAILED: Final = frozenset({"FAILED", "CANCELLED", "EXPIRED", "UNREACHED"})
_ORDER: Final = ("BUDGET_MET", "BUDGET_NOT_MET", "NO_IMPROVEMENT", "REFUSED")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class SummaryModel(_Part):
    """One model."""

    outcome: ModelOutcome
    fresh: bool = Field(description="Whether anything was done for it in this run")


class Totals(_Part):
    """How many models came to what."""

    models: int
    budget_met: int
    budget_not_met: int
    no_improvement: int
    refused: int
    failed: int
    fresh: int = Field(description="For how many anything was done in this run")
    seconds: float = Field(description="Of all their jobs together, those of earlier runs too")


class Summary(_Part):
    """A batch. Readers may rely on every field of a major version; a minor version adds fields."""

    schema_version: str = SCHEMA_VERSION
    shoal_version: str
    source: str
    started: str
    ended: str
    totals: Totals
    models: tuple[SummaryModel, ...]


def summarise(source: str, span: tuple[str, str], done: Sequence[Done]) -> Summary:
    """Returns the summary of a batch.

    Args:
        source: What the models came from.
        span: When it began and ended, ISO 8601.
        done: What came of each model.
    """
    models = tuple(SummaryModel(outcome=one.outcome, fresh=one.fresh) for one in done)
    return Summary(
        shoal_version=installed_version(),
        source=source,
        started=span[0],
        ended=span[1],
        totals=_totals(models),
        models=models,
    )


def _totals(models: Sequence[SummaryModel]) -> Totals:
    verdicts = [one.outcome.verdict for one in models]
    met, missed, unimproved, refused = (verdicts.count(each) for each in _ORDER)
    # Models with the same bytes share a job; its time counts once.
    jobs = {one.outcome.job: one.outcome.seconds or 0.0 for one in models if one.outcome.job}
    return Totals(
        models=len(models),
        budget_met=met,
        budget_not_met=missed,
        no_improvement=unimproved,
        refused=refused,
        failed=sum(verdict in _FAILED for verdict in verdicts),
        fresh=sum(one.fresh for one in models),
        seconds=sum(jobs.values()),
    )


def ordered(summary: Summary) -> list[SummaryModel]:
    """Returns the models, the best news first: by verdict, then by speed-up."""

    def key(one: SummaryModel) -> tuple[int, float, str]:
        verdict, speedup = one.outcome.verdict, one.outcome.speedup
        place = _ORDER.index(verdict) if verdict in _ORDER else len(_ORDER)
        return place, -(speedup.value if speedup else 0.0), one.outcome.label

    return sorted(summary.models, key=key)


def write_summary(summary: Summary, out: Path) -> tuple[Path, Path]:
    """Writes `summary.json` and `summary.html` into a batch's folder and returns where they are."""
    data, page = out / "summary.json", out / "summary.html"
    _replace(data, summary.model_dump_json(indent=2))
    _replace(page, render(summary, out))
    return data, page


def _replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all: the one of last night is worth something."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)  # noqa: PTH105 - the same in one step


def render(summary: Summary, out: Path) -> str:
    """Returns the page. The same summary and files always give the same page.

    Args:
        summary: The batch.
        out: Its folder; reports that are not there are not linked.
    """
    models = ordered(summary)
    plot: Plot | None = draw([one.outcome for one in models])
    links = {one.outcome.folder: _report(one.outcome, out) for one in models}
    return _environment().get_template("batch.html.j2").render(summary=summary, models=models, plot=plot, links=links)


def _report(outcome: ModelOutcome, out: Path) -> str | None:
    there = outcome.folder and (out / outcome.folder / "report.html").is_file()
    return quote(f"{outcome.folder}/report.html") if there else None


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from service.batch.board import WORDS
    from service.report import formats

    here = Path(__file__).parent
    # The look is that of the report.
    environment = Environment(
        loader=FileSystemLoader([here, here.parent / "report"]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        amount=formats.amount,
        duration=formats.duration,
        factor=formats.factor,
        ms=formats.milliseconds,
        percent=formats.percent,
        percentile=formats.percentile,
        significant=formats.significant,
    )
    environment.globals.update(words=WORDS, points=formats.points, change=formats.change)
    return environment
