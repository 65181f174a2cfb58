"""Puts what a job found into the report's schema. Copies and converts; decides and measures nothing."""

from __future__ import annotations

import datetime as dt
import math
import platform
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from compressors.analysis.between import between
from compressors.analysis.segments import Segment
from compressors.batches import in_order
from compressors.problem import Problem
from compressors.surgery import step_errors
from deploy.artifact import hash_model
from deploy.evaluate import Accuracy
from deploy.layers import Layer, summarise_network
from deploy.measure.report import Measurement, Ratio
from service.judging.quality import Goal, divergence_unit
from service.judging.scoring import FileScore
from service.judging.verdict import Verdict
from service.pipeline.inputs import Model, Samples
from service.pipeline.precisions import Settled
from service.pipeline.search import Found, Trial
from service.pipeline.shipping import Shipped
from service.programs import version_of
from service.report.figures import describe_figure, describe_inputs, describe_quality, describe_tuning
from service.report.precisions import PLAIN, describe_precision, describe_trials
from service.report.schema import (
    AccuracyReport,
    AgreementReport,
    ArtifactReport,
    BudgetReport,
    CandidateReport,
    DataReport,
    LatencyReport,
    LayerReport,
    MachineReport,
    NetworkReport,
    RefusalReport,
    Report,
    SpeedupReport,
    StepReport,
    TuningReport,
)
from service.spec import JobSpec
from service.worker.messages import WorkOrder

VERSIONED = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxsim", "onnxscript", "numpy")


LOSS_BATCH, LOSS_SAMPLES = 64, 256
"""On how many calibration samples each cut's own error is measured."""


@dataclass(frozen=True)
class Ending:
    """What is shipped, and what was measured of it.

    Attributes:
        verdict: The outcome.
        result: What ships; the baseline itself when nothing better was found.
        times: Latency of baseline and result, timed interleaved.
        ratio: Speed-up of the result; None when it is the baseline.
        scores: Of baseline and result on the validation samples.
    """

    verdict: Verdict
    result: Shipped
    times: tuple[Measurement, Measurement]
    ratio: Ratio | None
    scores: tuple[FileScore, FileScore]


@dataclass(frozen=True)
class Facts:
    """Everything that goes into a report."""

    order: WorkOrder
    model: Model
    samples: Samples
    baseline: Shipped
    problem: Problem
    found: Found
    ending: Ending
    goal: Goal
    phase_seconds: dict[str, float]
    seconds: float
    original_seconds: float
    settled: Settled | None

    @property
    def spec(self) -> JobSpec:
        """What was asked for."""
        return self.order.spec

    def in_final_seconds(self, seconds: float | None) -> float | None:
        """Returns a latency taken while planning at the speed that the machine had in the final measurement.

        Both times the original ran beside what was timed, so the ratio of its two latencies is the machine's drift.
        """
        return None if seconds is None else seconds * self.ending.times[0].seconds / self.original_seconds

    @property
    def chosen(self) -> Trial | None:
        """The trial that ships; None when the original does."""
        return None if self.ending.result is self.baseline else self.found.best


def assemble(facts: Facts) -> Report:
    """Returns the report of a finished job."""
    ending, spec = facts.ending, facts.spec
    before, after = ending.times
    return Report(
        shoal_version=version("shoal"),
        job=facts.order.job,
        display_name=facts.order.display_name.strip(),
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        model_name=facts.model.graph.name,
        model_source=facts.model.source,
        model_sha256=facts.model.sha256,
        input_shape=facts.model.graph.inputs[0].shape,
        inputs=describe_inputs(facts.model.graph),
        outcome=ending.verdict.outcome,
        explanation=ending.verdict.explanation,
        budget=_budget(facts, before),
        machine=_machine(facts, after),
        baseline=_network(facts.baseline, "baseline.onnx", before, ending.scores[0]),
        result=_result(facts),
        speedup=_speedup(ending.ratio, before),
        strategy=spec.strategy.name,
        strategy_options=spec.strategy.options,
        steps=_steps(facts),
        candidates=tuple(_candidate(facts, trial) for trial in facts.found.trials),
        refusals=tuple(
            RefusalReport(where=r.where, code=r.code, reason=r.reason) for r in facts.problem.analysis.refusals
        ),
        tuning=_tuning(facts),
        data=_data(facts),
        accuracy_floor=spec.accuracy_floor,
        quality_floor=facts.goal.floor,
        task=facts.goal.task.name,
        figure=describe_figure(facts.goal.figure),
        divergence_unit=divergence_unit(facts.goal, facts.model.graph),
        precisions=describe_trials(facts.settled, facts.goal, before.seconds * 1e3),
        seed=spec.seed,
        seconds=facts.seconds,
        phase_seconds=facts.phase_seconds,
        versions={"python": platform.python_version(), **{name: version_of(name) for name in VERSIONED}},
        measure_command=_measure_command(spec),
        artifacts=tuple(_artifact(path) for path in (facts.baseline.artifact.path, facts.order.out / "model.onnx")),
    )


def _budget(facts: Facts, before: Measurement) -> BudgetReport:
    limit = facts.spec.budget
    if limit.fraction is not None:
        asked, milliseconds = f"{limit.fraction:g}x", limit.fraction * before.seconds * 1e3
    else:
        asked, milliseconds = f"{limit.latency_ms:g}ms", float(limit.latency_ms or 0)
    floor = facts.in_final_seconds(facts.found.floor_seconds)
    return BudgetReport(
        asked=asked,
        milliseconds=milliseconds,
        percentile=limit.percentile,
        batch=limit.batch,
        floor_ms=None if floor is None else floor * 1e3,
    )


def _machine(facts: Facts, timed: Measurement) -> MachineReport:
    return MachineReport(
        device=facts.spec.target.device,
        description=timed.device.summary,
        runtime=timed.runtime.name,
        runtime_version=timed.runtime.version,
        threads=facts.spec.target.threads,
        precision=facts.baseline.artifact.precision,
        state_before=asdict(timed.conditions.before),
        state_after=asdict(timed.conditions.after),
        warnings=timed.warnings,
    )


def _result(facts: Facts) -> NetworkReport:
    ending = facts.ending
    described = _network(ending.result, "model.onnx", ending.times[1], ending.scores[1])
    if facts.settled is None or ending.result is facts.baseline:
        return described
    return described.model_copy(update={"precision": describe_precision(facts.settled.chosen.conversion)})


def _network(shipped: Shipped, filename: str, timed: Measurement, score: FileScore) -> NetworkReport:
    # Layers are told apart by their weights; casts and Q/DQ pairs would only stand between them.
    summary = summarise_network((shipped.plain or shipped.artifact).path)
    return NetworkReport(
        filename=filename,
        sha256=shipped.artifact.sha256,
        size_bytes=shipped.artifact.size_bytes,
        latency=_latency(timed),
        accuracy=None if score.accuracy is None else _accuracy(score.accuracy),
        quality=None if score.quality is None else describe_quality(score.quality),
        agreement=tuple(
            AgreementReport(
                batch=entry.batch,
                max_abs_error=entry.max_abs_error,
                max_rel_error=entry.max_relative_error,
                tolerance=entry.tolerance,
                passed=entry.passed,
            )
            for entry in shipped.agreement.batches
            # Of half precision it is known what rounding may do; int8's difference can only be measured.
            if math.isfinite(entry.tolerance)
        ),
        parameters=summary.parameters,
        macs=summary.macs,
        depth=summary.depth,
        activations=summary.activations,
        layers=tuple(_layer(layer) for layer in summary.layers),
        precision=PLAIN,
    )


def _layer(layer: Layer) -> LayerReport:
    return LayerReport(
        name=layer.name,
        op=layer.operator,
        output_shape=tuple("?" if size is None else size for size in layer.output_shape),
        parameters=layer.parameters,
        macs=layer.macs,
    )


def _latency(timed: Measurement) -> LatencyReport:
    times = timed.distribution
    return LatencyReport(
        p50=times.p50 * 1e3,
        p90=times.p90 * 1e3,
        p95=times.p95 * 1e3,
        p99=times.p99 * 1e3,
        mean=times.mean * 1e3,
        min=times.min * 1e3,
        count=times.n,
        samples_ms=tuple(value * 1e3 for value in timed.samples),
    )


def _accuracy(accuracy: Accuracy) -> AccuracyReport:
    return AccuracyReport(top1=accuracy.top1, low=accuracy.ci_low, high=accuracy.ci_high, count=accuracy.n)


def _speedup(ratio: Ratio | None, before: Measurement) -> SpeedupReport:
    if ratio is None:
        rounds = before.distribution.rounds
        return SpeedupReport(value=1.0, low=1.0, high=1.0, rounds=rounds, processes=before.processes)
    return SpeedupReport(
        value=ratio.speedup,
        low=ratio.ci_low,
        high=ratio.ci_high,
        confidence=ratio.confidence,
        rounds=ratio.rounds,
        processes=ratio.processes,
    )


def _steps(facts: Facts) -> tuple[StepReport, ...]:
    if facts.chosen is None:
        return ()
    segments: dict[tuple[str, str], Segment] = {(s.entry, s.exit): s for s in facts.problem.analysis.segments}
    planned = facts.chosen.candidate.plan.steps
    samples = in_order(facts.samples.feeds.calibration, LOSS_BATCH, LOSS_SAMPLES)
    errors = step_errors(facts.model.graph, facts.chosen.graph, planned, (batch.inputs for batch in samples))
    steps = []
    for step, error in zip(planned, errors, strict=True):
        segment = segments.get((step.entry, step.exit))
        inside = segment or between(facts.model.graph, facts.problem.analysis, step.entry, step.exit)
        steps.append(
            StepReport(
                kind=step.kind,
                segment=f"{step.entry}..{step.exit}" if segment is None else segment.name,
                label=step.label,
                operators_before=len(inside.operators),
                activations_before=len(inside.sites),
                error=error,
            )
        )
    return tuple(steps)


def _candidate(facts: Facts, trial: Trial) -> CandidateReport:
    plan = trial.candidate.plan
    kinds = Counter({"regress": "regressed", "remove": "removed", "merge": "merged"}[step.kind] for step in plan.steps)
    cuts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    predicted = facts.in_final_seconds(plan.predicted_seconds)
    seconds = facts.in_final_seconds(trial.candidate.seconds if trial.seconds is None else trial.seconds)
    improved = trial.tuned is not None and trial.tuned.improved
    refused = "" if trial.refusal is None else f" (refused: {trial.refusal})"
    return CandidateReport(
        label=f"{plan.strategy}: {cuts or 'nothing cut'}{', fine-tuned' if improved else ''}{refused}",
        steps=tuple(step.label for step in plan.steps),
        predicted_ms=None if predicted is None else predicted * 1e3,
        latency_ms=None if seconds is None else seconds * 1e3,
        selection_accuracy=trial.score.accuracy,
        selection_agreement=trial.score.agreement,
        divergence=trial.score.divergence,
        tuned=improved,
        chosen=trial is facts.chosen,
        selection_quality=facts.goal.of(trial.score),
    )


def _tuning(facts: Facts) -> TuningReport | None:
    tuned = None if facts.chosen is None else facts.chosen.tuned
    return None if tuned is None else describe_tuning(tuned, facts.goal)


def _data(facts: Facts) -> DataReport:
    samples, validation = facts.samples, facts.samples.validation
    classes = samples.parts.fit.classes
    # All parts of the training samples count what is broken in the whole of them.
    splits = [samples.parts.fit, *([] if validation is None else [validation])]
    return DataReport(
        train=samples.total,
        calibration=len(samples.parts.calibration),
        selection=len(samples.parts.selection),
        validation=0 if validation is None else len(validation),
        labelled=samples.parts.fit.labelled,
        classes=None if classes is None else len(classes),
        broken=sum(split.broken for split in splits),
        broken_examples=tuple(f"{split.field}: {name}" for split in splits for name in split.broken_names),
        several_labels=samples.parts.fit.several,
        preprocessing=samples.parts.fit.preprocessing.described(),
    )


def _measure_command(spec: JobSpec) -> str:
    options = f"--batch {spec.budget.batch} --threads {spec.target.threads} --percentile {spec.budget.percentile:g}"
    runtime = "" if spec.target.runtime == "onnxruntime" else f" --runtime {spec.target.runtime}"
    device = "" if spec.target.local_device == "cpu" else f" --device {spec.target.local_device}"
    return f"shoal measure model.onnx --baseline baseline.onnx {options}{runtime}{device}"


def _artifact(path: Path) -> ArtifactReport:
    sha256, size = hash_model(path)
    return ArtifactReport(filename=path.name, sha256=sha256, size_bytes=size)
