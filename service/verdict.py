"""What a job amounts to. Pure rules over what was measured; the only place that decides an outcome."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.evaluate import Accuracy
from deploy.measure.report import Budget, BudgetCheck, Measurement, Ratio, meets
from service.report.schema import Outcome


@dataclass(frozen=True)
class Evidence:
    """What was measured of a candidate for shipping.

    Attributes:
        check: Whether it keeps the budget.
        ratio: Its speed-up over the original.
        accuracy: Of its file on the validation samples, None without.
        floor: Lowest acceptable accuracy, None for any.
    """

    check: BudgetCheck
    ratio: Ratio
    accuracy: Accuracy | None
    floor: float | None


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
    accuracy, floor = evidence.accuracy, evidence.floor
    if floor is not None and accuracy is not None and accuracy.top1 < floor:
        return Verdict(
            "NO_IMPROVEMENT",
            f"The best network found is {interval} faster, but its accuracy of {accuracy.top1:.2%} on the validation "
            f"samples is under the floor of {floor:.2%}. The original is returned.",
        )
    # Against the original at the same moments; the tables show what the clock said over the whole measurement.
    figure = f"{check.seconds * 1e3:.3f} ms at {check.percentile} with the machine's drift taken out"
    limit = f"{figure}, budget {check.limit_seconds * 1e3:.3f} ms"
    if not check.met:
        return Verdict("BUDGET_NOT_MET", f"The budget was not met: {limit}. The best network found is {interval}.")
    sure = "" if check.certain else " The margin is within the measurement's uncertainty."
    return Verdict("BUDGET_MET", f"The budget is met: {limit}. Speed-up {interval}.{sure}")


def judge_without_candidate(original: Measurement, budget: Budget, floor: float | None) -> Verdict:
    """Returns the outcome when nothing was made: the original keeps the budget as it is, or nothing was found."""
    check = meets(budget, original, original)
    if check.met:
        return Verdict(
            "BUDGET_MET",
            f"The original is within the budget already: {check.seconds * 1e3:.3f} ms at {check.percentile}, budget "
            f"{check.limit_seconds * 1e3:.3f} ms. It is returned unchanged.",
        )
    why = "within the time limit" if floor is None else f"that holds the accuracy floor of {floor:.2%}"
    return Verdict("NO_IMPROVEMENT", f"No faster network was found {why}. The original is returned.")
