"""What pages tell of a job, in words and numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from google.protobuf.json_format import ParseDict

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.database.clock import now
from service.jobs.job import Job
from service.jobs.states import State
from service.report.formats import percentile
from service.report.render import HEADLINES
from service.spec import Budget, ModelSource, Target
from service.web import words

_LIVELY: Final = frozenset({State.RUNNING, State.CANCELLING})
_TONES: Final = {"BUDGET_MET": "good", "BUDGET_NOT_MET": "warn", "NO_IMPROVEMENT": "none"}

NameFile = Callable[[str], str]
"""Returns what a file is called, from `artifacts/{id}`."""


@dataclass(frozen=True)
class Verdict:
    """What came out of a job.

    Attributes:
        headline: In two words.
        tone: `good`, `warn` or `none`.
        speedup: Original over result.
    """

    headline: str
    tone: str
    speedup: float


@dataclass(frozen=True)
class Summary:
    """A job in short.

    Attributes:
        title: Its display name, or its id where it has none.
        model: What is to be made faster.
        budget: What was asked for.
        terms: At which percentile and batch, where these are not the usual ones.
        verdict: None without a result.
        seconds: How long it ran, or runs already; None before it began.
    """

    job: Job
    title: str
    model: str
    budget: str
    terms: str
    verdict: Verdict | None
    seconds: float | None

    @property
    def word(self) -> str:
        """The state in a word."""
        return words.STATES[self.job.state]

    @property
    def lively(self) -> bool:
        """Whether a worker is on it."""
        return self.job.state in _LIVELY

    @property
    def target(self) -> str:
        """Where it is to be fast, and how."""
        return describe_target(self.job.spec.target)


def summarise(job: Job, name_file: NameFile) -> Summary:
    """Returns a job in short."""
    return Summary(
        job=job,
        title=job.display_name.strip() or job.id,
        model=describe_model(job.spec.model, name_file),
        budget=describe_budget(job.spec.budget),
        terms=describe_terms(job.spec.budget),
        verdict=_verdict(job),
        seconds=_seconds(job, now()),
    )


def describe_model(model: ModelSource, name_file: NameFile) -> str:
    """Returns the architecture, or the file's name."""
    if model.named is not None:
        return model.named.architecture
    return name_file(model.pt2_artifact or model.onnx_artifact or model.folder_artifact or "")


def describe_budget(budget: Budget) -> str:
    """Returns e.g. `12 ms`, or `0.6` with a multiplication sign."""
    if budget.fraction is not None:
        return f"{budget.fraction:g}\N{MULTIPLICATION SIGN}"
    return f"{budget.latency_ms:g}\N{NARROW NO-BREAK SPACE}ms"


def describe_terms(budget: Budget) -> str:
    """Returns e.g. `at p99, batch 8`; empty for the median of single samples."""
    at = [] if budget.percentile == 50 else [f"at {percentile(budget.percentile)}"]
    return ", ".join(at if budget.batch == 1 else [*at, f"batch {budget.batch}"])


def describe_target(target: Target) -> str:
    """Returns e.g. `onnxruntime, fp32, 1 thread`."""
    precision = target.precision.removeprefix("PRECISION_").lower()
    return f"{target.runtime}, {precision}, {target.threads} thread{'' if target.threads == 1 else 's'}"


def result_of(job: Job) -> job_pb.OptimizationResult | None:
    """Returns what came out; None before."""
    return (
        None if job.result is None else ParseDict(job.result, job_pb.OptimizationResult(), ignore_unknown_fields=True)
    )


def _verdict(job: Job) -> Verdict | None:
    if job.result is None:
        return None
    outcome = str(job.result.get("outcome", "")).removeprefix("OUTCOME_")
    return Verdict(HEADLINES.get(outcome, outcome), _TONES.get(outcome, "none"), float(job.result.get("speedup", 1.0)))


def _seconds(job: Job, moment: datetime) -> float | None:
    if job.start_time is None:
        return None
    return ((job.end_time or moment) - job.start_time).total_seconds()
