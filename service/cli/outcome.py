"""What came of a job: as JSON, as text, and as an exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from service.cli import figures
from service.cli.errors import Status
from service.cli.precision import precision_json, precision_lines, precision_row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from protos.shoal.v1 import optimization_job_pb2 as job_pb

HEADLINES: Final = {
    "BUDGET_MET": "Budget met.",
    "BUDGET_NOT_MET": "Budget not met; this is the fastest acceptable network found.",
    "NO_IMPROVEMENT": "No improvement; the original network is returned.",
}


def state_name(job: job_pb.OptimizationJob) -> str:
    """Returns e.g. `SUCCEEDED`."""
    return type(job).State.Name(job.state).removeprefix("STATE_")


def outcome_name(job: job_pb.OptimizationJob) -> str | None:
    """Returns e.g. `BUDGET_MET`; None without a result."""
    if not job.HasField("result"):
        return None
    return type(job.result).Outcome.Name(job.result.outcome).removeprefix("OUTCOME_")


def job_id(job: job_pb.OptimizationJob) -> str:
    """Returns the last part of the job's name."""
    return job.name.rpartition("/")[2]


def exit_status(job: job_pb.OptimizationJob) -> Status:
    """Returns what a command that waited for this finished job exits with."""
    match state_name(job):
        case "SUCCEEDED":
            return Status.DONE if outcome_name(job) == "BUDGET_MET" else Status.BUDGET_NOT_MET
        case "FAILED" if job.error.blame == "caller":
            return Status.USAGE
    return Status.FAILED


def seconds(job: job_pb.OptimizationJob) -> float | None:
    """Returns how long the job ran, queueing not counted; None before it ended."""
    if not job.HasField("start_time") or not job.HasField("end_time"):
        return None
    return (job.end_time.ToDatetime() - job.start_time.ToDatetime()).total_seconds()


def as_json(job: job_pb.OptimizationJob, paths: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns the job as the documented JSON object.

    Args:
        job: The job, finished or not.
        paths: Where each file was stored, by filename. Default: the names of the artifacts on the server.
    """
    result = job.result if job.HasField("result") else None
    links = {link.filename: link.name for link in result.artifacts} if result else {}
    return {
        "name": job.name,
        "display_name": job.display_name,
        "state": state_name(job),
        "outcome": outcome_name(job),
        "explanation": result.explanation if result else None,
        "speedup": result.speedup if result else None,
        "speedup_interval": [result.speedup_low, result.speedup_high] if result else None,
        "seconds": seconds(job),
        "budget_ms": result.budget_ms if result else None,
        "floor_ms": result.floor_ms if result and result.HasField("floor_ms") else None,
        "percentile": _percentile(job),
        "batch": _batch(job),
        "task": (result.task or None) if result else None,
        "precision": precision_json(job),
        "baseline": _network(result.baseline) if result else None,
        "result": _network(result.result) if result else None,
        "artifacts": dict(paths) if paths is not None else links,
        "error": _error(job),
        "progress": _progress(job),
    }


def _network(facts: job_pb.NetworkFacts) -> dict[str, Any]:
    latency, accuracy = facts.latency, facts.accuracy
    return {
        "latency_ms": {"p50": latency.p50_ms, "p90": latency.p90_ms, "p99": latency.p99_ms}
        if facts.HasField("latency")
        else None,
        "accuracy": accuracy.top1 if facts.HasField("accuracy") else None,
        "accuracy_interval": [accuracy.low, accuracy.high] if facts.HasField("accuracy") else None,
        "quality": _quality(facts.quality) if facts.HasField("quality") else None,
        "parameters": facts.parameters,
        "macs": facts.macs,
        "depth": facts.depth,
        "sha256": facts.sha256,
    }


def _quality(quality: job_pb.Quality) -> dict[str, Any]:
    return {
        "name": quality.figure.name,
        "unit": quality.figure.unit,
        "higher_is_better": quality.figure.higher_is_better,
        "value": quality.value,
        "interval": [quality.low, quality.high] if quality.HasField("low") else None,
        "count": quality.count,
    }


def _error(job: job_pb.OptimizationJob) -> dict[str, str] | None:
    if not job.HasField("error"):
        return None
    return {"reason": job.error.reason, "message": job.error.message, "blame": job.error.blame}


def _progress(job: job_pb.OptimizationJob) -> dict[str, Any] | None:
    if not job.HasField("progress"):
        return None
    progress = job.progress
    return {
        "phase": progress.phase,
        "fraction": progress.fraction,
        "message": progress.message,
        "metrics": dict(progress.metrics),
        "seconds_left": progress.time_left.ToTimedelta().total_seconds() if progress.HasField("time_left") else None,
    }


def _percentile(job: job_pb.OptimizationJob) -> float:
    return job.spec.budget.percentile if job.spec.budget.HasField("percentile") else 50.0


def _batch(job: job_pb.OptimizationJob) -> int:
    return job.spec.budget.batch if job.spec.budget.HasField("batch") else 1


def _threads(job: job_pb.OptimizationJob) -> int:
    return job.spec.target.threads if job.spec.target.HasField("threads") else 1


def text(job: job_pb.OptimizationJob, paths: Mapping[str, str] | None = None, triton: Path | None = None) -> str:
    """Returns the job as a short text for people.

    Args:
        job: The job, finished or not.
        paths: Where each file was stored, by filename; None when they were not downloaded.
        triton: The model's folder in a Triton model repository; None where none was written.
    """
    blocks = [_headline(job)]
    if job.HasField("result"):
        blocks.append(_comparison(job))
        if lines := precision_lines(job):
            blocks.append("\n".join(lines))
        blocks.append(_files(job, paths, triton) if paths else _how_to_download(job))
    return "\n\n".join(blocks)


def _headline(job: job_pb.OptimizationJob) -> str:
    took = seconds(job)
    tail = f" ({figures.clock(took)})" if took is not None else ""
    outcome = outcome_name(job)
    if outcome is not None:
        return (job.result.explanation or HEADLINES.get(outcome, outcome)) + tail
    if job.HasField("error"):
        return f"{state_name(job).capitalize()}{tail}: {job.error.message} [{job.error.reason}]"
    if job.HasField("progress") and not job.HasField("end_time"):
        progress = job.progress
        return f"{state_name(job).capitalize()}: {100 * progress.fraction:.0f} %, {progress.phase}: {progress.message}"
    return f"{state_name(job).capitalize()}{tail}."


def _comparison(job: job_pb.OptimizationJob) -> str:
    before, after = job.result.baseline, job.result.result
    rows = [("", "before", "after", "")]
    counted = f"p{_percentile(job):g}"
    for name in ("p50", "p90", "p99"):
        remark = _speedup(job) if name == counted else ""
        rows.append((f"{name} ms", _latency(before, name), _latency(after, name), remark))
    if counted not in {"p50", "p90", "p99"}:
        rows.append((f"at {counted}", "", "", _speedup(job)))
    if before.HasField("accuracy") or after.HasField("accuracy"):
        rows.append(("accuracy", _accuracy(before), _accuracy(after), _accuracy_change(before, after)))
    elif before.HasField("quality") and after.HasField("quality"):
        rows.append(("quality", _value(before.quality), _value(after.quality), _meaning(after.quality)))
    if (precision := precision_row(job)) is not None:
        rows.append(precision)
    rows.append(("depth", str(before.depth), str(after.depth), ""))
    rows.append(("parameters", figures.large(before.parameters), figures.large(after.parameters), ""))
    rows.append(("MACs", figures.large(before.macs), figures.large(after.macs), ""))
    lines = [f"  {name:<10}  {old:>10}  {new:>10}   {remark}".rstrip() for name, old, new, remark in rows]
    return "\n".join(
        [*lines, f"  budget {figures.milliseconds(job.result.budget_ms)} at {counted}, batch {_batch(job)}"]
    )


def _latency(facts: job_pb.NetworkFacts, name: str) -> str:
    return figures.significant(getattr(facts.latency, f"{name}_ms"), 4) if facts.HasField("latency") else "-"


def _speedup(job: job_pb.OptimizationJob) -> str:
    result = job.result
    return f"{result.speedup:.2f}x as fast (95 % interval {result.speedup_low:.2f} to {result.speedup_high:.2f})"


def _accuracy(facts: job_pb.NetworkFacts) -> str:
    return figures.percent(facts.accuracy.top1) if facts.HasField("accuracy") else "-"


def _accuracy_change(before: job_pb.NetworkFacts, after: job_pb.NetworkFacts) -> str:
    if not before.HasField("accuracy") or not after.HasField("accuracy"):
        return ""
    points = 100 * (after.accuracy.top1 - before.accuracy.top1)
    return f"{points:+.2f} points on {after.accuracy.count} samples"


def _value(quality: job_pb.Quality) -> str:
    fraction = quality.figure.unit == "fraction"
    return figures.percent(quality.value) if fraction else figures.significant(quality.value, 4)


def _meaning(quality: job_pb.Quality) -> str:
    """Returns e.g. `noise-prediction error, mean squared error, lower is better, 500 samples`."""
    figure = quality.figure
    unit = "" if figure.unit == "fraction" else f", {figure.unit}"
    way = "higher" if figure.higher_is_better else "lower"
    return f"{figure.name}{unit}, {way} is better, {quality.count} samples"


def _files(job: job_pb.OptimizationJob, paths: Mapping[str, str], triton: Path | None) -> str:
    import shlex
    from pathlib import Path

    width = max(len(name) for name in paths)
    lines = [f"  {name:<{width}}  {path}" for name, path in paths.items()]
    if triton is not None:
        lines.append(f"  {'for Triton':<{width}}  {triton}")
    if "manifest.json" in paths:
        folder = str(Path(paths["manifest.json"]).parent)
        lines += ["", "Check the files:", f"  {shlex.join(['shoal', 'verify', folder])}"]
    if "model.onnx" in paths and "baseline.onnx" in paths:
        lines += ["", "Measure again:", f"  {measure_command(job, paths)}"]
    return "\n".join(["Files:", *lines])


def triton_json(triton: Path | None) -> dict[str, str]:
    """Returns what `as_json` is completed by where a Triton model repository was written."""
    return {} if triton is None else {"triton": str(triton)}


def measure_command(job: job_pb.OptimizationJob, paths: Mapping[str, str]) -> str:
    """Returns the command that measures the returned file again, against the original."""
    import shlex

    words = ["shoal", "measure", paths["model.onnx"], "--baseline", paths["baseline.onnx"]]
    words += ["--batch", str(_batch(job)), "--threads", str(_threads(job)), "--percentile", f"{_percentile(job):g}"]
    runtime = job.spec.target.runtime
    words += ["--runtime", runtime] if runtime not in ("", "onnxruntime") else []
    return shlex.join(words)


def _how_to_download(job: job_pb.OptimizationJob) -> str:
    return f"Fetch the files: shoal jobs download {job_id(job)}"
