"""Whether the report speaks of the delivered files, and whether its figures hold when they are taken again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from deploy.artifact import hash_model
from deploy.errors import DeployError
from service.delivery.checks import Check, failed, ok, skipped
from service.delivery.manifest import Manifest, ManifestError, first_fault, read_plain
from service.report.schema import Report

if TYPE_CHECKING:
    from deploy.evaluate import Accuracy
    from deploy.remeasure import Remeasurement

SLACK = 0.02
"""Two measurements differ by more than either knows: the machine is in another state. They aim at this precision."""

FILENAME = "report.json"
MAX_BYTES = 64 << 20


def read_report(folder: Path) -> Report:
    """Returns the report of a folder that anybody may have made.

    Raises:
        ManifestError: There is none, or it is damaged or too large.
    """
    try:
        return Report.model_validate_json(read_plain(folder / FILENAME, MAX_BYTES))
    except ValidationError as exc:
        raise ManifestError(f"{FILENAME} is no report: {first_fault(exc)}") from exc


def check_report(folder: Path, manifest: Manifest, report: Report) -> list[Check]:
    """Returns whether report and manifest speak of the same files and the same figures."""
    result, short = report.result, manifest.latency
    facts = (
        ("model", result.filename, manifest.model.filename),
        ("SHA-256 of the model", result.sha256, manifest.model.sha256),
        ("outcome", report.outcome, manifest.outcome),
        ("speed-up", report.speedup.value, short.speedup),
        ("p50 in ms", result.latency.p50, short.result_ms.get("p50")),
        ("job", report.job, manifest.job),
    )
    differing = [
        failed("report", FILENAME, f"speaks of another {what}", got, wanted)
        for what, got, wanted in facts
        if got != wanted
    ]
    original = _check_original(folder, manifest, report)
    return [*(differing or [ok("report", FILENAME, "speaks of the model and the figures of the manifest")]), original]


def _check_original(folder: Path, manifest: Manifest, report: Report) -> Check:
    name = report.baseline.filename
    if name not in manifest.digests:
        return failed("report", FILENAME, "names an original that is not in the manifest", name, "one of the files")
    try:
        sha256, _ = hash_model(folder / name)
    except DeployError as exc:
        return failed("report", FILENAME, str(exc))
    if sha256 != report.baseline.sha256:
        return failed("report", FILENAME, f"speaks of another {name}", report.baseline.sha256, sha256)
    return ok("report", FILENAME, f"speaks of the {name} in the folder")


def check_latency(found: Remeasurement, report: Report) -> list[Check]:
    """Returns whether speed-up and budget hold by a new measurement.

    A speed-up holds where its interval and the report's, widened by `SLACK`, overlap. A budget that was met holds
    unless the whole new interval lies beyond it; milliseconds of another machine say nothing.
    """
    if found.ratio is None:
        return [skipped("latency", "speed-up", "the original is what was delivered; there is nothing to compare")]
    ratio, stated = found.ratio, report.speedup
    got, wanted = (
        f"{value:.3g}x ({low:.3g} to {high:.3g})"
        for value, low, high in ((ratio.speedup, ratio.ci_low, ratio.ci_high), (stated.value, stated.low, stated.high))
    )
    said = f"{got} now, {wanted} in the report"
    apart = ratio.ci_low > stated.high * (1 + SLACK) or ratio.ci_high < stated.low * (1 - SLACK)
    speedup = (
        failed("latency", "speed-up", f"is another{_elsewhere(found, report)}", got, wanted)
        if apart
        else ok("latency", "speed-up", said)
    )
    return [speedup, _check_budget(found, report)]


def _check_budget(found: Remeasurement, report: Report) -> Check:
    asked, ratio = report.budget.asked, found.ratio
    assert ratio is not None
    if report.outcome != "BUDGET_MET":
        return skipped("latency", "budget", f"the report does not say that {asked} was met")
    if fraction := _fraction(asked):
        return _held("budget", asked, 1 / ratio.ci_high, fraction, "of the original's time")
    if _elsewhere(found, report):
        return skipped("latency", "budget", f"{asked} was met on another machine, {report.machine.description}")
    least = found.candidate.interval(f"p{report.budget.percentile:g}").low
    return _held("budget", asked, least * 1e3, report.budget.milliseconds, "ms")


def _fraction(asked: str) -> float | None:
    """Returns a budget like `0.6x` as a number; None for one in milliseconds, or for what is none."""
    try:
        return float(asked.removesuffix("x")) if asked.endswith("x") else None
    except ValueError:
        return None


def _held(subject: str, asked: str, least: float, limit: float, unit: str) -> Check:
    if least <= limit:
        return ok("latency", subject, f"{asked} is met")
    return failed("latency", subject, f"{asked} is not met", f"at least {least:.4g} {unit}", f"at most {limit:.4g}")


def _elsewhere(found: Remeasurement, report: Report) -> str:
    here = found.candidate.device.summary
    there = report.machine.description
    return "" if here == there else f" (measured on another machine: {there}; this is {here})"


def check_accuracy(found: Accuracy, report: Report) -> Check:
    """Returns whether the report's accuracy holds: whether its interval and the new one overlap."""
    stated = report.result.accuracy
    if stated is None:
        return skipped("accuracy", "top-1", "the report states none")
    got, wanted = (
        f"{top1:.2%} ({low:.2%} to {high:.2%}, {count} samples)"
        for top1, low, high, count in (
            (found.top1, found.ci_low, found.ci_high, found.n),
            (stated.top1, stated.low, stated.high, stated.count),
        )
    )
    if found.ci_low > stated.high or found.ci_high < stated.low:
        return failed("accuracy", "top-1", "is another", got, wanted)
    return ok("accuracy", "top-1", f"{got} now, {wanted} in the report")
