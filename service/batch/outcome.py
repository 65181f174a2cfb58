"""What came of one model of a batch: one record, kept in the ledger, in registries and in the summary."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict

from service.cli.precision import precision_json

if TYPE_CHECKING:
    from protos.shoal.v1 import optimization_job_pb2 as job_pb

Verdict = Literal[
    "BUDGET_MET", "BUDGET_NOT_MET", "NO_IMPROVEMENT", "REFUSED", "FAILED", "CANCELLED", "EXPIRED", "UNREACHED"
]
DELIVERED: Final = frozenset({"BUDGET_MET", "BUDGET_NOT_MET", "NO_IMPROVEMENT"})
"""Verdicts of jobs that have a result."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Measured(_Part):
    """A value with its 95 % interval, where one is known."""

    value: float
    low: float | None = None
    high: float | None = None


class QualityPair(_Part):
    """How good original and result are, on the validation samples."""

    name: str
    unit: str
    higher_is_better: bool
    before: Measured
    after: Measured
    count: int

    @property
    def change(self) -> Measured:
        """The change, in percentage points where the figure is a fraction, else in the figure's unit.

        The interval is Newcombe's for a difference (1998, method 10), from the intervals of the two values. Both were
        taken on the same samples, so it is on the wide side.
        """
        scale = 100.0 if self.unit == "fraction" else 1.0
        before, after = self.before, self.after
        value = after.value - before.value
        if None in (before.low, before.high, after.low, after.high):
            return Measured(value=scale * value)
        assert before.low is not None
        assert before.high is not None
        assert after.low is not None
        assert after.high is not None
        down = math.hypot(after.value - after.low, before.high - before.value)
        up = math.hypot(after.high - after.value, before.value - before.low)
        return Measured(value=scale * value, low=scale * (value - down), high=scale * (value + up))


class PrecisionTried(_Part):
    """One precision that was tried for a network, and what stood against it."""

    precision: str
    computes: str
    latency_ms: float | None = None
    speedup: float | None = None
    selection_quality: float | None = None
    returned: bool
    passed_over: str | None = None


class PrecisionFound(_Part):
    """The precision that was asked for, the one that was returned, and all that were tried; named as `--precision`."""

    asked: str
    returned: str
    computes: str
    tried: tuple[PrecisionTried, ...] = ()


class ModelOutcome(_Part):
    """What came of one model.

    Attributes:
        name: What it is called in its registry.
        version: Which of that name; empty where there are no versions.
        place: Where it is there.
        identity: Of the work: model, data and settings; empty where it never came to be known.
        input_sha256: Of the model's files.
        verdict: What it amounts to.
        reason: Why; one or two sentences.
        blame: Whose fault a failure is: `caller`, `machine` or `shoal`; empty without one.
        job: `optimizationJobs/{id}`; empty where there is none.
        server: Where that job is.
        speedup: Baseline latency over result latency.
        before_ms: The original's latency at the percentile, in milliseconds.
        after_ms: The result's.
        budget_ms: As it was applied.
        percentile: Which percentile the latencies are at.
        quality: How good both are; None without samples to tell it on.
        precision: What the result's numbers are written in and what else was tried; None where the server does not say.
        parameters: Of original and result.
        output_sha256: Of the delivered file.
        seconds: How long the job ran.
        folder: Where the delivered files are, relative to the batch's folder; empty where there are none.
        published: Where a registry holds the result; empty where none does.
    """

    name: str
    version: str = ""
    place: str = ""
    identity: str = ""
    input_sha256: str = ""
    verdict: Verdict
    reason: str = ""
    blame: str = ""
    job: str = ""
    server: str = ""
    speedup: Measured | None = None
    before_ms: float | None = None
    after_ms: float | None = None
    budget_ms: float | None = None
    percentile: float = 50.0
    quality: QualityPair | None = None
    precision: PrecisionFound | None = None
    parameters: tuple[int, int] | None = None
    output_sha256: str = ""
    seconds: float | None = None
    folder: str = ""
    published: str = ""

    @property
    def label(self) -> str:
        """The name with its version, as people read it."""
        return f"{self.name} v{self.version}" if self.version else self.name

    @property
    def improved(self) -> bool:
        """Whether it may be handed on as an improvement."""
        return self.verdict == "BUDGET_MET"

    @property
    def settled(self) -> bool:
        """Whether the same work would come to the same again, so that it is not tried again."""
        return self.verdict in DELIVERED or (self.verdict in {"FAILED", "REFUSED"} and self.blame == "caller")


def from_job(job: job_pb.OptimizationJob) -> ModelOutcome:
    """Returns what a finished job amounts to; who it was for is to be filled in."""
    state = type(job).State.Name(job.state).removeprefix("STATE_")
    spent = (
        (job.end_time.ToDatetime() - job.start_time.ToDatetime()).total_seconds() if job.HasField("start_time") else 0
    )
    known = {"name": job.display_name, "job": job.name, "seconds": spent}
    if not job.HasField("result"):
        reason, blame = (
            (job.error.message, job.error.blame) if job.HasField("error") else (f"it was {state.lower()}", "")
        )
        verdict = state if state in {"CANCELLED", "EXPIRED"} else "FAILED"
        return ModelOutcome.model_validate({**known, "verdict": verdict, "reason": reason, "blame": blame})
    result = job.result
    percentile = job.spec.budget.percentile if job.spec.budget.HasField("percentile") else 50.0
    return ModelOutcome.model_validate(
        {
            **known,
            "verdict": type(result).Outcome.Name(result.outcome).removeprefix("OUTCOME_"),
            "reason": result.explanation,
            "speedup": {"value": result.speedup, "low": result.speedup_low, "high": result.speedup_high},
            "before_ms": _latency(result.baseline, percentile),
            "after_ms": _latency(result.result, percentile),
            "budget_ms": result.budget_ms,
            "percentile": percentile,
            "quality": _quality(result),
            "precision": precision_json(job),
            "parameters": (result.baseline.parameters, result.result.parameters),
            "output_sha256": result.result.sha256,
        }
    )


def _latency(facts: job_pb.NetworkFacts, percentile: float) -> float | None:
    """Returns the latency at a percentile that the API gives, None at any other."""
    if not facts.HasField("latency"):
        return None
    latency = facts.latency
    return {50.0: latency.p50_ms, 90.0: latency.p90_ms, 99.0: latency.p99_ms}.get(percentile)


def _quality(result: job_pb.OptimizationResult) -> QualityPair | None:
    before, after = result.baseline, result.result
    if before.HasField("accuracy") and after.HasField("accuracy"):
        pair = [Measured(value=one.top1, low=one.low, high=one.high) for one in (before.accuracy, after.accuracy)]
        return QualityPair(
            name="top-1 accuracy", unit="fraction", higher_is_better=True,
            before=pair[0], after=pair[1], count=after.accuracy.count,
        )  # fmt: skip
    if not (before.HasField("quality") and after.HasField("quality")):
        return None
    figure = after.quality.figure
    values = [
        Measured(
            value=one.value,
            low=one.low if one.HasField("low") else None,
            high=one.high if one.HasField("high") else None,
        )
        for one in (before.quality, after.quality)
    ]
    return QualityPair(
        name=figure.name, unit=figure.unit, higher_is_better=figure.higher_is_better,
        before=values[0], after=values[1], count=after.quality.count,
    )  # fmt: skip
