"""From a fitted graph to a file that was checked, timed and scored: what the report may speak of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from compressors.batches import count, fetch
from compressors.errors import SurgeryError
from compressors.graph import Graph
from compressors.problem import Samples
from compressors.surgery import fold_norms
from deploy.agree import Agreement, agree
from deploy.artifact import Artifact
from deploy.bench import Bench, LocalBench
from deploy.export import export_onnx
from deploy.measure.report import Budget, BudgetCheck, Measurement, Ratio, compare, meets
from deploy.measure.settings import TimingSettings
from deploy.measure.whole import measure
from deploy.table import TableSettings
from deploy.tensors import Array
from service.spec import JobSpec

AGREEMENT_BATCHES = (1, 3, 8)


@dataclass(frozen=True)
class Shipped:
    """An exported network that computes what its graph computes.

    Attributes:
        graph: What was exported, norms folded.
        artifact: The file.
        agreement: The file against the graph.
        plain: The float32 file that it was converted from; None where it is in float32 itself.
    """

    graph: Graph
    artifact: Artifact
    agreement: Agreement
    plain: Artifact | None = None


@dataclass(frozen=True)
class Contest:
    """Original and result, timed interleaved in the same fresh processes.

    Attributes:
        baseline: The original's times.
        result: The result's times.
        ratio: Speed-up with its confidence interval.
        check: Whether the budget holds.
    """

    baseline: Measurement
    result: Measurement
    ratio: Ratio
    check: BudgetCheck


def ship(graph: Graph, path: Path, samples: Samples | None = None, bench: Bench | None = None) -> Shipped:
    """Folds norms, exports, and checks the file against the graph at several batch sizes.

    Args:
        graph: A fitted graph.
        path: Where the ONNX file goes.
        samples: Real inputs to check on; random ones without.
        bench: What will run the file, and so checks it; by default ONNX Runtime here.

    Raises:
        ExportError: The graph cannot be written as ONNX.
        SurgeryError: The file does not compute what the graph computes.
    """
    folded = fold_norms(graph)
    artifact = export_onnx(folded.module, folded.inputs, [spec.name for spec in folded.outputs], path)
    feeds = None if samples is None else first_samples(samples, max(AGREEMENT_BATCHES))
    agreement = agree(artifact, graph.module, batches=AGREEMENT_BATCHES, samples=feeds, bench=bench or LocalBench())
    if not agreement.passed:
        worst = max(entry.max_relative_error for entry in agreement.batches)
        raise SurgeryError(
            f"its file does not compute what the network does: outputs differ by {worst:.1e} of the largest, "
            f"{agreement.batches[0].tolerance:.0e} is allowed"
        )
    return Shipped(folded, artifact, agreement)


def first_samples(samples: Samples, most: int) -> list[Array]:
    """Returns the inputs of the first so many samples, one array each."""
    return [values.numpy() for values in fetch(samples, range(min(most, count(samples)))).inputs]


def contest(
    baseline: Shipped, result: Shipped, spec: JobSpec, settings: TimingSettings, bench: Bench | None = None
) -> Contest:
    """Times both files interleaved in fresh processes and holds the result against the budget.

    Raises:
        MeasureError: A timing process died or hung.
    """
    original, candidate = measure([baseline.artifact.path, result.artifact.path], settings, bench=bench)
    check = meets(engine_budget(spec), original, candidate)
    return Contest(original, candidate, compare(original, candidate), check)


def engine_budget(spec: JobSpec) -> Budget:
    """Returns the job's budget in seconds or as a fraction."""
    limit = spec.budget
    return Budget(None if limit.latency_ms is None else limit.latency_ms / 1e3, limit.fraction)


def timing_settings(spec: JobSpec, seconds: float | None = None) -> TimingSettings:
    """Returns how the job's networks are timed: as reports are, or quickly.

    Args:
        spec: What the job asks for.
        seconds: At least so long, all in one process, whose interval is then only as good as `PLACEMENT`; None times
            as reports are.
    """
    settings = TimingSettings(
        batch=spec.budget.batch,
        percentile=f"p{spec.budget.percentile:g}",
        threads=spec.target.threads,
        runtime=spec.target.runtime,
        device=spec.target.local_device,
        seed=spec.seed,
    )
    return settings if seconds is None else replace(settings, min_seconds=seconds, processes=1)


def table_settings(spec: JobSpec, precision: str = "float32") -> TableSettings:
    """Returns how the job's operators are timed, written in a precision."""
    settings = timing_settings(spec)
    return TableSettings(
        batch=settings.batch,
        percentile=settings.percentile,
        threads=settings.threads,
        runtime=settings.runtime,
        precision=precision,
        seed=spec.seed,
    )
