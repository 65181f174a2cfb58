"""Precisions as the report tells them: what a file is written in, and what else was tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.report.schema import (
    DifferenceReport,
    KeptReport,
    PrecisionReport,
    PrecisionTrialReport,
)

if TYPE_CHECKING:
    from service.judging.quality import Goal
    from service.pipeline.conversion import Attempt, Conversion
    from service.pipeline.precisions import Settled

PLAIN = PrecisionReport(precision="float32", computes="float32")
"""Of a file that was not converted."""


def describe_precision(conversion: Conversion) -> PrecisionReport:
    """Returns what a file's numbers are written in."""
    score = conversion.score
    converted = conversion.precision != "float32"
    return PrecisionReport(
        precision=conversion.precision,
        computes=conversion.computes,
        kept=tuple(KeptReport(node=one.node, op=one.operator, reason=one.reason) for one in conversion.kept),
        operators=conversion.operators,
        calibrator=conversion.calibrator,
        calibration_samples=conversion.samples,
        difference=DifferenceReport(agreement=score.agreement, divergence=score.divergence, samples=score.samples)
        if score is not None and converted
        else None,
    )


def describe_trials(settled: Settled | None, goal: Goal, original_ms: float) -> tuple[PrecisionTrialReport, ...]:
    """Returns every precision that was tried.

    Args:
        settled: What was chosen; None where there was no choice.
        goal: The figure that counts.
        original_ms: The original's latency in the final measurement.
    """
    if settled is None:
        return ()
    return tuple(_trial(each, settled, goal, original_ms) for each in settled.attempts)


def _trial(attempt: Attempt, settled: Settled, goal: Goal, original_ms: float) -> PrecisionTrialReport:
    conversion, score = attempt.conversion, attempt.conversion.score
    chosen = attempt.precision == settled.chosen.precision
    return PrecisionTrialReport(
        precision=conversion.precision,
        computes=conversion.computes,
        latency_ms=None if attempt.speedup is None else original_ms / attempt.speedup,
        speedup=attempt.speedup,
        selection_quality=None if score is None else goal.of(score),
        agreement=None if score is None else score.agreement,
        divergence=None if score is None else score.divergence,
        calibrator=conversion.calibrator,
        kept=len(conversion.kept),
        operators=conversion.operators,
        refusal=attempt.refusal,
        chosen=chosen,
    )
