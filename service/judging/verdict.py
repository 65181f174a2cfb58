"""What a job amounts to. Pure rules over what was measured; the only place that decides an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.measure.report import Budget, BudgetCheck, Measurement, Ratio, meets
from service.judging.quality import Goal, Quality
from service.report.schema import Outcome


@dataclass(frozen=True)
class Evidence:
    """What was measured of a candidate for shipping.

    Attributes:
        check: Whether it keeps the budget.
        ratio: Its speed-up over the original.
        quality: Of its file on the validation samples, None without.
        goal: The figure that counts, and the worst acceptable value of it.
    """

    check: BudgetCheck
    ratio: Ratio
    quality: Quality | None
    goal: Goal


@dataclass(frozen=True)
class Verdict:
    """An outcome and its reason. With NO_IMPROVEMENT the original is what ships."""

    outcome: Outcome
    explanation: str


def judge(evidence: Evidence) -> Verdict:
    """Returns the outcome for a network that was made.

    A gain is claimed only if the confidence interval of the speed-up lies above 1.
    """
    check, ratio = evidence.check, evidence.ratio
    interval = f"{ratio.speedup:.2f}x (95 % interval {ratio.ci_low:.2f} to {ratio.ci_high:.2f})"
    if not ratio.is_faster:
        return Verdict(
            "NO_IMPROVEMENT",
            f"The best network found is not measurably faster than the original: {interval}. The original is returned.",
        )
    quality, goal = evidence.quality, evidence.goal
    if quality is not None and not goal.accepts(quality):
        side = "under" if goal.figure.higher_is_better else "above"
        return Verdict(
            "NO_IMPROVEMENT",
            f"The best network found is {interval} faster, but its {goal.figure.name} of "
            f"{goal.figure.said(quality.value)} on the validation samples is {side} {goal.bound}. "
            "The original is returned.",
        )
    # Against the original at the same moments; the tables show what the clock said over the whole measurement.
    figure = f"{check.seconds * 1e3:.3f} ms at {check.percentile} with the machine's drift taken out"
    limit = f"{figure}, budget {check.limit_seconds * 1e3:.3f} ms"
    if not check.met:
        return Verdict("BUDGET_NOT_MET", f"The budget was not met: {limit}. The best network found is {interval}.")
    sure = "" if check.certain else " The margin is within the measurement's uncertainty."
    return Verdict("BUDGET_MET", f"The budget is met: {limit}. Speed-up {interval}.{sure}")


def judge_without_candidate(original: Measurement, budget: Budget, goal: Goal, refusals: Sequence[str] = ()) -> Verdict:
    """Returns the outcome when nothing was made: the original keeps the budget as it is, or nothing was found.

    Args:
        original: Its times.
        budget: Of the job.
        goal: The figure that counts, and its worst acceptable value.
        refusals: Why each network that was found cannot be shipped; empty where one could.
    """
    check = meets(budget, original, original)
    if check.met:
        return Verdict(
            "BUDGET_MET",
            f"The original is within the budget already: {check.seconds * 1e3:.3f} ms at {check.percentile}, budget "
            f"{check.limit_seconds * 1e3:.3f} ms. It is returned unchanged.",
        )
    if refusals:
        planned = f"{len(refusals)} networks were" if len(refusals) > 1 else "One network was"
        return Verdict(
            "NO_IMPROVEMENT", f"{planned} planned and cannot be shipped: {refusals[0]}. The original is returned."
        )
    why = "within the time limit" if goal.floor is None else f"whose {goal.figure.name} holds {goal.bound}"
    return Verdict("NO_IMPROVEMENT", f"No faster network was found {why}. The original is returned.")
