"""Why a job returned one precision and not another, told from its report alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.report.schema import PrecisionTrialReport, Report


def is_returned(trial: PrecisionTrialReport, report: Report) -> bool:
    """Returns whether what came of a trial is what the job returned."""
    shipped = report.result.precision
    return (
        trial.chosen and not _original_returned(report) and shipped is not None and shipped.precision == trial.precision
    )


def passed_over(trial: PrecisionTrialReport, report: Report) -> str:
    """Returns why another precision was taken, a clause; empty where nothing stands against this one.

    Where the original is returned, no precision was taken, and only those that could not have been have a reason.
    """
    if trial.refusal is not None:
        return trial.refusal
    chosen = next((each for each in report.precisions if each.chosen), None)
    if trial.chosen or chosen is None or _original_returned(report):
        return ""
    if trial.speedup is None or chosen.speedup is None:
        return "it was not timed"
    if trial.speedup < chosen.speedup:
        return f"it takes {chosen.speedup / trial.speedup:.2f}x the time of {chosen.precision}"
    if trial.precision == "float32":
        return f"{chosen.precision} was asked for and is no more than 2 % slower"
    return f"it has {trial.speedup / chosen.speedup:.2f}x the speed of {chosen.precision}, which is within 2 % of it"


def _original_returned(report: Report) -> bool:
    return report.result.sha256 == report.baseline.sha256
