"""Which precision came of a job and why, as lines and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from service.cli import figures

if TYPE_CHECKING:
    from protos.shoal.v1 import optimization_job_pb2 as job_pb


def precision_json(job: job_pb.OptimizationJob) -> dict[str, Any] | None:
    """Returns what was asked for, what was returned and all that was tried; None where the result does not say."""
    if not job.result.HasField("precision"):
        return None
    choice = job.result.precision
    return {
        "asked": asked(job),
        "returned": name_of(choice.returned),
        "computes": name_of(choice.computes),
        "tried": [_trial_json(trial) for trial in choice.tried],
    }


def _trial_json(trial: job_pb.PrecisionTrial) -> dict[str, Any]:
    return {
        "precision": name_of(trial.precision),
        "computes": name_of(trial.computes),
        "latency_ms": trial.latency_ms if trial.HasField("latency_ms") else None,
        "speedup": trial.speedup if trial.HasField("speedup") else None,
        "selection_quality": trial.selection_quality if trial.HasField("selection_quality") else None,
        "returned": trial.returned,
        "passed_over": trial.passed_over or None,
    }


def name_of(precision: job_pb.Precision.ValueType) -> str:
    """Returns a precision as `--precision` has it, e.g. `int8`."""
    from protos.shoal.v1 import optimization_job_pb2

    return optimization_job_pb2.Precision.Name(precision).removeprefix("PRECISION_").lower()


def asked(job: job_pb.OptimizationJob) -> str:
    """Returns the precision that a job was asked for."""
    return name_of(job.spec.target.precision) if job.spec.target.precision else "fp32"


def precision_row(job: job_pb.OptimizationJob) -> tuple[str, str, str, str] | None:
    """Returns the row of the comparison; None where the result does not say. The original is always in fp32."""
    if not job.result.HasField("precision"):
        return None
    choice = job.result.precision
    remarks = [f"{asked(job)} was asked for"] if asked(job) != name_of(choice.returned) else []
    if choice.computes != choice.returned:
        remarks.append(f"computed in {name_of(choice.computes)} here")
    return ("precision", "fp32", name_of(choice.returned), ", ".join(remarks))


def precision_lines(job: job_pb.OptimizationJob) -> list[str]:
    """Returns a line for each precision that was tried: its latency, its speed-up, and what stood against it."""
    tried = job.result.precision.tried
    return ["Precisions that were tried:", *map(_line, tried)] if tried else []


def _line(trial: job_pb.PrecisionTrial) -> str:
    latency = figures.milliseconds(trial.latency_ms) if trial.HasField("latency_ms") else "-"
    speedup = f"{trial.speedup:.2f}x" if trial.HasField("speedup") else "-"
    remark = "returned" if trial.returned else trial.passed_over
    return f"  {name_of(trial.precision):<10}  {latency:>10}  {speedup:>10}   {remark}".rstrip()
