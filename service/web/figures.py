"""The numbers of a job: those known so far, and the original beside the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.report.figures import change_text, value_text
from service.report.formats import NOTHING, amount, change, factor, integer, milliseconds, percent, significant
from service.report.schema import FigureReport
from service.web.curves import Curve

_FIRST: Final = (
    "baseline_ms",
    "budget_ms",
    "candidate_ms",
    "floor_ms",
    "loss",
    "holdout_accuracy",
    "holdout_agreement",
)
_SHARES: Final = ("accuracy", "agreement")


@dataclass(frozen=True)
class Number:
    """A number with its name and, where it changed, its course as points of a polyline."""

    name: str
    value: str
    points: str


@dataclass(frozen=True)
class Row:
    """What the original has, what the result has, and the difference, in words."""

    name: str
    before: str
    after: str
    change: str


@dataclass(frozen=True)
class PrecisionRow:
    """One precision that was tried, in words."""

    name: str
    latency: str
    speedup: str
    passed_over: str
    returned: bool


def numbers(metrics: Mapping[str, float], curves: Mapping[str, Curve]) -> list[Number]:
    """Returns the metrics of a job: times first, then what training says, then the rest by name."""
    known = [name for name in _FIRST if name in metrics]
    others = sorted(metrics.keys() - set(_FIRST))
    return [
        Number(_label(name), _value(name, metrics[name]), curves[name].points if name in curves else "")
        for name in (*known, *others)
    ]


def _label(name: str) -> str:
    return name.removesuffix("_ms").replace("_", " ")


def _value(name: str, value: float) -> str:
    if name.endswith("_ms"):
        return milliseconds(value)
    return percent(value) if name.endswith(_SHARES) else significant(value)


def compare(result: job_pb.OptimizationResult) -> list[Row]:
    """Returns the original beside the result."""
    before, after = result.baseline, result.result
    rows = []
    if before.HasField("latency") and after.HasField("latency"):
        for name in ("p50", "p90", "p99"):
            old, new = (float(getattr(one.latency, f"{name}_ms")) for one in (before, after))
            rows.append(Row(f"Latency {name}", milliseconds(old), milliseconds(new), change(old, new)))
    rows += _quality(before, after)
    rows.append(Row("Depth", integer(before.depth), integer(after.depth), change(before.depth, after.depth)))
    rows += _precision(result)
    pairs = (("Parameters", before.parameters, after.parameters), ("Multiply-accumulates", before.macs, after.macs))
    return [*rows, *(Row(name, amount(old), amount(new), change(old, new)) for name, old, new in pairs)]


def precisions(result: job_pb.OptimizationResult) -> list[PrecisionRow]:
    """Returns the precisions that were tried; none where nothing but fp32 was asked for."""
    return [
        PrecisionRow(
            name=precision_name(trial.precision),
            latency=milliseconds(trial.latency_ms if trial.HasField("latency_ms") else None),
            speedup=factor(trial.speedup) if trial.HasField("speedup") else NOTHING,
            passed_over=trial.passed_over,
            returned=trial.returned,
        )
        for trial in result.precision.tried
    ]


def _precision(result: job_pb.OptimizationResult) -> list[Row]:
    if not result.HasField("precision"):
        return []
    choice = result.precision
    only_stored = choice.computes != choice.returned
    remark = f"computed in {precision_name(choice.computes)}" if only_stored else ""
    return [Row("Precision", precision_name(job_pb.PRECISION_FP32), precision_name(choice.returned), remark)]


def precision_name(precision: job_pb.Precision.ValueType) -> str:
    """Returns e.g. `fp32`."""
    return job_pb.Precision.Name(precision).removeprefix("PRECISION_").lower()


def _quality(before: job_pb.NetworkFacts, after: job_pb.NetworkFacts) -> list[Row]:
    if before.HasField("quality") and after.HasField("quality"):
        told = before.quality.figure
        figure = FigureReport(name=told.name, unit=told.unit, higher_is_better=told.higher_is_better)
        old, new, count = before.quality.value, after.quality.value, after.quality.count
    elif before.HasField("accuracy") and after.HasField("accuracy"):
        figure = FigureReport()
        old, new, count = before.accuracy.top1, after.accuracy.top1, after.accuracy.count
    else:
        return []
    name = figure.name[:1].upper() + figure.name[1:]
    before_text, after_text = (value_text(figure, value, count) for value in (old, new))
    return [Row(name, before_text, after_text, change_text(figure, old, new, count))]
