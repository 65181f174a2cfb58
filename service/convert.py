"""Between the wire's messages and the service's own values. The only place where both are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict, ParseDict, SerializeToJsonError
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import ValidationError

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.errors import InvalidRequestError, Violation
from service.jobs.job import Event, Failure, Job, Progress
from service.report.choice import is_returned, passed_over
from service.report.schema import (
    CandidateReport,
    FigureReport,
    NetworkReport,
    PrecisionTrialReport,
    QualityReport,
    Report,
)
from service.spec import JobSpec
from service.storage.artifacts import Artifact, ArtifactKind
from service.uploads.announcement import Announcement
from service.uploads.uploads import UploadStatus
from service.worker.messages import AnalysisResult, PrecisionFloorFacts

_KINDS = {
    service_pb.ARTIFACT_KIND_MODEL: ArtifactKind.MODEL,
    service_pb.ARTIFACT_KIND_WEIGHTS: ArtifactKind.WEIGHTS,
    service_pb.ARTIFACT_KIND_DATA: ArtifactKind.DATA,
    service_pb.ARTIFACT_KIND_RESULT: ArtifactKind.RESULT,
}
_PRECISIONS: Final = {
    "float32": job_pb.PRECISION_FP32,
    "float16": job_pb.PRECISION_FP16,
    "bfloat16": job_pb.PRECISION_BF16,
    "int8": job_pb.PRECISION_INT8,
}
"""The API's names of `deploy.precision.PRECISIONS`."""

_MAX_GOT = 100
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}


def read_spec(message: job_pb.OptimizationJobSpec) -> JobSpec:
    """Returns the checked spec, with its defaults.

    Raises:
        InvalidRequestError: Fields break their rules; the violations' paths begin with `spec`.
    """
    return _validated(read_fields(message, "spec"), "spec.")


def read_analysis(message: service_pb.AnalyzeModelRequest) -> JobSpec:
    """Returns what a dry run needs as a spec; the budget's limit is made up if there is none.

    Raises:
        InvalidRequestError: Fields break their rules.
    """
    fields = read_fields(message, "request")
    fields.pop("skip_floor", None)
    budget = fields.setdefault("budget", {})
    if message.budget.WhichOneof("limit") is None:
        budget["fraction"] = 0.5
    return _validated(fields, "")


def read_fields(message: Message, where: str) -> dict[str, Any]:
    """Returns a message as JSON has it, which cannot hold all that a message can: NaN in free values, for one.

    Raises:
        InvalidRequestError: It holds such a thing; the violation is at `where`.
    """
    try:
        return MessageToDict(message, preserving_proto_field_name=True)
    except (SerializeToJsonError, ValueError) as exc:
        raise InvalidRequestError([Violation(where, str(exc).rstrip("."))]) from exc


def _validated(fields: dict[str, Any], prefix: str) -> JobSpec:
    try:
        return JobSpec.model_validate(fields)
    except ValidationError as exc:
        raise InvalidRequestError(violations(exc, prefix)) from exc


def violations(error: ValidationError, prefix: str) -> list[Violation]:
    """Returns one violation per pydantic error; its path is `prefix` and the error's location, with dots."""
    found = []
    for item in error.errors(include_url=False, include_context=False):
        path = prefix + ".".join(str(part) for part in item["loc"])
        got = f"; got {item['input']!r}"[:_MAX_GOT] if isinstance(item["input"], str | int | float) else ""
        found.append(Violation(path.rstrip("."), item["msg"].removeprefix("Value error, ") + got))
    return found


def read_announcement(message: service_pb.UploadMetadata) -> Announcement:
    """Returns an upload's metadata, unchecked."""
    kind = _KINDS.get(message.kind)
    return Announcement(message.upload_id, kind, message.filename, message.size_bytes, message.sha256)


def write_artifact(artifact: Artifact) -> service_pb.Artifact:
    """Returns a stored file's facts."""
    return service_pb.Artifact(
        name=artifact.name,
        kind=_KIND_NUMBERS[artifact.kind],
        filename=artifact.filename,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        create_time=_timestamp(artifact.create_time),
    )


def write_upload_status(status: UploadStatus) -> service_pb.UploadStatus:
    """Returns how far an upload is."""
    artifact = None if status.artifact is None else write_artifact(status.artifact)
    return service_pb.UploadStatus(committed_size=status.committed_size, artifact=artifact)


def write_spec(spec: JobSpec) -> job_pb.OptimizationJobSpec:
    """Returns a spec with every default filled in."""
    fields = spec.model_dump(mode="json", exclude_none=True, exclude={"time_limit"})
    message = ParseDict(fields, job_pb.OptimizationJobSpec())
    message.time_limit.CopyFrom(_duration(spec.time_limit))
    return message


def write_job(job: Job) -> job_pb.OptimizationJob:
    """Returns the job resource."""
    return job_pb.OptimizationJob(
        name=job.name,
        spec=write_spec(job.spec),
        state=job_pb.OptimizationJob.State.Value(f"STATE_{job.state}"),
        progress=None if job.progress is None else write_progress(job.progress),
        result=None if job.result is None else ParseDict(job.result, job_pb.OptimizationResult()),
        error=None if job.failure is None else write_failure(job.failure),
        create_time=_timestamp(job.create_time),
        start_time=_timestamp(job.start_time),
        end_time=_timestamp(job.end_time),
        attempts=job.attempts,
        display_name=job.display_name,
    )


def write_progress(progress: Progress) -> job_pb.JobProgress:
    """Returns a progress report."""
    return job_pb.JobProgress(
        phase=progress.phase,
        fraction=progress.fraction,
        message=progress.message,
        metrics=progress.metrics,
        time_left=None if progress.time_left is None else _duration(progress.time_left),
    )


def write_failure(failure: Failure) -> job_pb.JobError:
    """Returns why a job has no result."""
    return job_pb.JobError(reason=failure.reason, message=failure.message, blame=failure.blame)


def write_event(event: Event) -> service_pb.JobEvent:
    """Returns a numbered event."""
    message = service_pb.JobEvent(sequence=event.sequence, event_time=_timestamp(event.time))
    if isinstance(event.body, Job):
        message.snapshot.CopyFrom(write_job(event.body))
    else:
        message.progress.CopyFrom(write_progress(event.body))
    return message


def write_opening(job: Job, sequence: int, time: datetime) -> service_pb.JobEvent:
    """Returns a watch stream's first message: the job as it is; `sequence` is the last number that the caller saw."""
    return service_pb.JobEvent(sequence=sequence, event_time=_timestamp(time), snapshot=write_job(job))


def write_heartbeat(sequence: int, time: datetime) -> service_pb.JobEvent:
    """Returns a sign of life; `sequence` is the last number sent."""
    return service_pb.JobEvent(sequence=sequence, event_time=_timestamp(time), heartbeat=service_pb.Heartbeat())


def result_fields(report: Report, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Returns an `OptimizationResult` in protobuf's JSON form, as a job keeps it."""
    result = job_pb.OptimizationResult(
        outcome=job_pb.OptimizationResult.Outcome.Value(f"OUTCOME_{report.outcome}"),
        explanation=report.explanation,
        baseline=_network(report.baseline),
        result=_network(report.result),
        speedup=report.speedup.value,
        speedup_low=report.speedup.low,
        speedup_high=report.speedup.high,
        budget_ms=report.budget.milliseconds,
        floor_ms=report.budget.floor_ms,
        candidates=[_candidate(item) for item in report.candidates],
        refusals=[job_pb.Refusal(where=item.where, code=item.code, reason=item.reason) for item in report.refusals],
        artifacts=[_link(item) for item in artifacts],
        task=report.task,
        figure=_figure(report.figure),
        divergence_unit=report.divergence_unit,
        precision=_precision(report),
    )
    return MessageToDict(result, preserving_proto_field_name=True)


def _network(network: NetworkReport) -> job_pb.NetworkFacts:
    latency, accuracy = network.latency, network.accuracy
    return job_pb.NetworkFacts(
        sha256=network.sha256,
        latency=job_pb.Latency(p50_ms=latency.p50, p90_ms=latency.p90, p99_ms=latency.p99, count=latency.count),
        accuracy=None
        if accuracy is None
        else job_pb.Accuracy(top1=accuracy.top1, low=accuracy.low, high=accuracy.high, count=accuracy.count),
        parameters=network.parameters,
        macs=network.macs,
        depth=network.depth,
        quality=None if network.quality is None else _quality(network.quality),
    )


def _figure(figure: FigureReport) -> job_pb.Figure:
    return job_pb.Figure(name=figure.name, unit=figure.unit, higher_is_better=figure.higher_is_better)


def _quality(quality: QualityReport) -> job_pb.Quality:
    return job_pb.Quality(
        figure=_figure(quality.figure),
        value=quality.value,
        low=quality.low,
        high=quality.high,
        count=quality.count,
    )


def _candidate(candidate: CandidateReport) -> job_pb.CandidateFacts:
    return job_pb.CandidateFacts(
        label=candidate.label,
        latency_ms=candidate.latency_ms,
        selection_accuracy=candidate.selection_accuracy,
        divergence=candidate.divergence,
        chosen=candidate.chosen,
        selection_quality=candidate.selection_quality,
    )


def _precision(report: Report) -> job_pb.PrecisionChoice | None:
    shipped = report.result.precision
    if shipped is None:
        return None
    return job_pb.PrecisionChoice(
        returned=_PRECISIONS.get(shipped.precision, job_pb.PRECISION_UNSPECIFIED),
        computes=_PRECISIONS.get(shipped.computes, job_pb.PRECISION_UNSPECIFIED),
        tried=[_precision_trial(trial, report) for trial in report.precisions],
    )


def _precision_trial(trial: PrecisionTrialReport, report: Report) -> job_pb.PrecisionTrial:
    return job_pb.PrecisionTrial(
        precision=_PRECISIONS.get(trial.precision, job_pb.PRECISION_UNSPECIFIED),
        computes=_PRECISIONS.get(trial.computes, job_pb.PRECISION_UNSPECIFIED),
        latency_ms=trial.latency_ms,
        speedup=trial.speedup,
        selection_quality=trial.selection_quality,
        returned=is_returned(trial, report),
        passed_over=passed_over(trial, report),
    )


def _link(artifact: Artifact) -> job_pb.ArtifactLink:
    return job_pb.ArtifactLink(
        name=artifact.name, filename=artifact.filename, size_bytes=artifact.size_bytes, sha256=artifact.sha256
    )


def write_analysis(analysis: AnalysisResult) -> service_pb.AnalyzeModelResponse:
    """Returns what a dry run found."""
    response = service_pb.AnalyzeModelResponse(
        parameters=analysis.parameters,
        sites=[service_pb.ActivationSite(**item.model_dump()) for item in analysis.sites],
        segments=[service_pb.SegmentDescription(**item.model_dump()) for item in analysis.segments],
        refusals=[job_pb.Refusal(**item.model_dump()) for item in analysis.refusals],
    )
    if analysis.floor is not None:
        floor = analysis.floor
        response.floor.baseline_ms, response.floor.floor_ms = floor.baseline_ms, floor.floor_ms
        response.floor.elapsed.CopyFrom(_duration(timedelta(seconds=floor.elapsed_seconds)))
        response.floor.precision = _PRECISIONS[floor.precision]
        response.floor.precisions.extend(_precision_floor(item) for item in floor.precisions)
    return response


def _precision_floor(found: PrecisionFloorFacts) -> service_pb.PrecisionFloor:
    return service_pb.PrecisionFloor(
        precision=_PRECISIONS[found.precision],
        computes=_PRECISIONS[found.computes],
        original_ms=found.original_ms,
        floor_ms=found.floor_ms,
        refusal=found.refusal,
    )


def write_strategy(name: str, summary: str, options_schema: Mapping[str, Any]) -> service_pb.StrategyDescription:
    """Returns a strategy's description; the schema is JSON schema."""
    description = service_pb.StrategyDescription(name=name, summary=summary)
    description.options_schema.update(dict(options_schema))
    return description


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def _duration(length: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(length)
    return message
