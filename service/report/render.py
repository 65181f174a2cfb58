"""Draws a report as one page of HTML that needs nothing else: no network, no scripts, no fonts.

Every text is escaped by the template engine, and the page forbids scripts and connections to itself besides: model and
layer names come from strangers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.report import formats
from service.report.alignment import Run, align
from service.report.charts import at_percentile, curves, distributions
from service.report.choice import is_returned, passed_over
from service.report.figures import change_text, value_text
from service.report.front import best_measured, floor_of, front
from service.report.profile import TIME, profile, sides
from service.report.tiles import accuracy_tile, latency_tile, quality_tile, speedup_tile

if TYPE_CHECKING:
    from service.report.schema import CandidateReport, RefusalReport, Report

HEADLINES: Final = {
    "BUDGET_MET": "Budget met",
    "BUDGET_NOT_MET": "Budget not met",
    "NO_IMPROVEMENT": "No improvement",
}
_LIST_OF_NUMBERS: Final = 4
_MOST_CANDIDATES: Final = 16


def render(report: Report) -> str:
    """Returns the page. The same report always gives the same page."""
    return _environment().get_template("page.html.j2").render(report=report, **_view(report))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        amount=formats.amount,
        duration=formats.duration,
        factor=formats.factor,
        integer=formats.integer,
        ms=formats.milliseconds,
        percent=formats.percent,
        percentile=formats.percentile,
        plain=formats.plain,
        scientific=formats.scientific,
        shape=formats.shape,
        significant=formats.significant,
        bytes=formats.size,
        words=_words,
    )
    environment.globals.update(
        change=formats.change, points=formats.points, figure_value=value_text, figure_change=change_text
    )
    return environment


def _view(report: Report) -> dict[str, Any]:
    """Returns what the templates need besides the report itself."""
    runs = align(report.baseline.layers, report.result.layers)
    return {
        "headline": HEADLINES[report.outcome],
        "unchanged": report.baseline.sha256 == report.result.sha256,
        "before_ms": at_percentile(report.baseline.latency, report.budget.percentile),
        "after_ms": at_percentile(report.result.latency, report.budget.percentile),
        "latency_tile": latency_tile(report),
        "speedup_tile": speedup_tile(report),
        "accuracy_tile": accuracy_tile(report),
        "quality_tile": quality_tile(report, floor_of(report)),
        "floor_value": floor_of(report),
        "distributions": distributions(report),
        "front": front(report),
        "profile": profile(runs),
        "times": profile(runs, TIME),
        "runs": [_Fold.of(run) for run in runs],
        "curves": curves(report.tuning, report.figure, report.divergence_unit) if report.tuning else [],
        "refusals": _grouped(report.refusals),
        "chosen": next((candidate for candidate in report.candidates if candidate.chosen), None),
        "agreement": _agreement(report),
        "machine_state": _state(report),
        "costs": _costs(report),
        "candidates": _shown_candidates(report),
        "all_candidates": list(enumerate(report.candidates, start=1)),
        "percentiles": _percentiles(report),
        "kept": _kept(report),
        "trials": [(each, is_returned(each, report), passed_over(each, report)) for each in report.precisions],
    }


@dataclass(frozen=True)
class _Fold:
    """A stretch of layers; long unchanged ones are folded."""

    run: Run
    folded: bool
    macs: int
    before_ms: float
    after_ms: float

    @staticmethod
    def of(run: Run) -> _Fold:
        before, after = (
            [layer for layer in side if layer is not None] for side in zip(*map(sides, run.rows), strict=True)
        )
        times = (sum(layer.milliseconds or 0.0 for layer in layers) for layers in (before, after))
        return _Fold(run, not run.changed and len(run.rows) > 3, sum(layer.macs for layer in before), *times)


@dataclass(frozen=True)
class _RefusalGroup:
    """Refusals of one kind.

    Attributes:
        code: Which kind.
        reason: The reason, where it is the same for all; else None.
        items: All of them.
    """

    code: str
    reason: str | None
    items: tuple[RefusalReport, ...]


def _grouped(refusals: tuple[RefusalReport, ...]) -> list[_RefusalGroup]:
    by_code = groupby(sorted(refusals, key=lambda refusal: refusal.code), key=lambda refusal: refusal.code)
    groups = []
    for code, members in by_code:
        items = tuple(members)
        reasons = {refusal.reason for refusal in items}
        groups.append(_RefusalGroup(code, reasons.pop() if len(reasons) == 1 else None, items))
    return sorted(groups, key=lambda group: -len(group.items))


def _kept(report: Report) -> list[tuple[str, str, int]]:
    """Returns how many operators of the result stayed in float32, by type and reason, the most first."""
    precision = report.result.precision
    counts = Counter((one.op, one.reason) for one in (precision.kept if precision else ()))
    return [(op, reason, count) for (op, reason), count in counts.most_common()]


def _agreement(report: Report) -> list[tuple[int, list[Any]]]:
    """Returns for each batch size the entry of the original and that of the result, None where there is none."""
    columns = [{entry.batch: entry for entry in network.agreement} for network in (report.baseline, report.result)]
    batches = sorted({batch for column in columns for batch in column})
    return [(batch, [column.get(batch) for column in columns]) for batch in batches]


def _state(report: Report) -> list[tuple[str, str, str]]:
    before, after = report.machine.state_before, report.machine.state_after
    return [(_words(key), _reading(before.get(key)), _reading(after.get(key))) for key in {**before, **after}]


def _reading(value: Any) -> str:
    """Returns a reading as text; many of a kind (the clock of every processor) as their range."""
    many = isinstance(value, (list, tuple)) and len(value) > _LIST_OF_NUMBERS
    if many and all(isinstance(item, (int, float)) for item in value):
        return f"{min(value):.6g} to {max(value):.6g} ({len(value)} readings)"
    return formats.plain(value)


def _shown_candidates(report: Report) -> list[tuple[int, CandidateReport]]:
    """Returns the candidates with their numbers: all of them or, of many, the best measured and the returned one."""
    numbered = list(enumerate(report.candidates, start=1))
    best = best_measured(report.candidates, report.figure)
    if len(numbered) <= _MOST_CANDIDATES or not best:
        return numbered
    return [(number, c) for number, c in numbered if c.chosen or any(c is other for other in best)]


def _percentiles(report: Report) -> list[tuple[str, float, float]]:
    """Returns name, original and result of every latency that was reported, and of the budget's percentile."""
    names = ["min", "p50", "mean", "p90", "p95", "p99"]
    before, after = report.baseline.latency, report.result.latency
    rows = [(name, float(getattr(before, name)), float(getattr(after, name))) for name in names]
    wanted = report.budget.percentile
    name = formats.percentile(wanted)
    if name not in names:
        rows.append((name, at_percentile(before, wanted), at_percentile(after, wanted)))
    return rows


def _costs(report: Report) -> list[tuple[str, str, str, str]]:
    """Returns what the networks cost: what, original, result, change."""
    before, after = report.baseline, report.result
    rows = [
        ("Multiply-accumulates per sample", before.macs, after.macs, formats.amount),
        ("Parameters", before.parameters, after.parameters, formats.amount),
        ("Depth (operators on the longest path)", before.depth, after.depth, formats.integer),
        ("Activations", before.activations, after.activations, formats.integer),
        ("File size", before.size_bytes, after.size_bytes, formats.size),
    ]
    return [(what, show(old), show(new), formats.change(old, new)) for what, old, new, show in rows]


def _words(key: str) -> str:
    return key.replace("_", " ")
