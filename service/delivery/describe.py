"""From what a job knows to its manifest and `run.py`; the last thing that a worker does."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from compressors.graph import Graph, TensorSpec
from compressors.tasks import judged_output
from deploy.bench import Bench
from deploy.digest import file_digest
from deploy.modelfile import open_model, weight_files
from deploy.tensors import TensorInfo
from service.data import TokenRecipe
from service.data.preprocessing import ResolvedPreprocessing
from service.data.tokens import role_of
from service.delivery import runners
from service.delivery.engines import NONE, Engines, deliver_engine
from service.delivery.manifest import (
    BATCH,
    DELIVERED,
    FILENAME,
    BudgetEntry,
    DeviceEntry,
    FigureEntry,
    FileEntry,
    ImagePreprocessing,
    LatencyEntry,
    Manifest,
    ModelEntry,
    Preprocessing,
    RawPreprocessing,
    RuntimeEntry,
    TensorEntry,
    TokenPreprocessing,
)
from service.delivery.origin import describe_source
from service.report.assemble import Facts
from service.report.schema import LatencyReport, NetworkReport, Report

_MODEL = "model.onnx"
_CLASSES = ("classification", "multi_label")
_COLOURS: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}


def deliver(facts: Facts, report: Report, bench: Bench) -> None:
    """Writes `run.py`, the engine that was timed on the job's device, and the manifest of what lies in the results."""
    out = facts.order.out
    (out / runners.FILENAME).write_bytes(runners.runner_bytes())
    engines = deliver_engine(out / _MODEL, bench)
    (out / FILENAME).write_text(describe(facts, report, engines).model_dump_json(indent=2), encoding="utf-8")


def describe(facts: Facts, report: Report, engines: Engines = NONE) -> Manifest:
    """Returns the manifest of a finished job.

    Args:
        facts: What the job knows.
        report: Its report; it, and every other file, lies in the folder already.
        engines: Those that lie in the folder.
    """
    source, labels = describe_source(facts.order, facts.model.sha256)
    budget, machine = report.budget, report.machine
    return Manifest(
        shoal_version=report.shoal_version,
        job=report.job,
        created=report.created,
        files=list_files(facts.order.out),
        model=_model(facts, report, labels),
        engines=engines.entries,
        engine_missing=engines.missing,
        preprocessing=describe_preprocessing(facts.samples.parts.fit.preprocessing, facts.model.graph),
        task=report.task,
        outcome=report.outcome,
        budget=BudgetEntry(
            asked=budget.asked, milliseconds=budget.milliseconds, percentile=budget.percentile, batch=budget.batch
        ),
        runtime=RuntimeEntry(name=machine.runtime, version=machine.runtime_version, threads=machine.threads),
        device=DeviceEntry(name=machine.device, description=machine.description),
        latency=LatencyEntry(
            baseline_ms=_short(report.baseline.latency),
            result_ms=_short(report.result.latency),
            speedup=report.speedup.value,
            speedup_interval=(report.speedup.low, report.speedup.high),
        ),
        figure=_figure(report),
        source=source,
        strategy=report.strategy,
        seed=report.seed,
        versions={**report.versions, **_runtime_version(machine.runtime)},
    )


def list_files(folder: Path) -> tuple[FileEntry, ...]:
    """Returns every file that is delivered, but the manifest itself."""
    found = (folder / name for name in DELIVERED if name != FILENAME)
    return tuple(
        FileEntry(filename=path.name, sha256=file_digest(path), size_bytes=path.stat().st_size)
        for path in found
        if path.is_file()
    )


def _model(facts: Facts, report: Report, stated: tuple[str, ...] | None) -> ModelEntry:
    graph, artifact = facts.model.graph, facts.ending.result.artifact
    path = facts.order.out / _MODEL
    output = class_output(graph) if report.task in _CLASSES else None
    return ModelEntry(
        filename=_MODEL,
        sha256=report.result.sha256,
        weights=weight_files(open_model(path)),
        opset=artifact.opset,
        precision=artifact.precision,
        inputs=tuple(_tensor(info, graph.inputs) for info in artifact.inputs),
        outputs=tuple(_tensor(info, ()) for info in artifact.outputs),
        class_output=None if output is None else output.name,
        labels=None if output is None else choose_labels(facts.samples.parts.fit.classes, stated, output.shape[0]),
    )


def class_output(graph: Graph) -> TensorSpec | None:
    """Returns the output with one number per class; None where the judged one is no vector."""
    output = graph.outputs[judged_output(graph)]
    return output if len(output.shape) == 1 else None


def choose_labels(
    named: tuple[str, ...] | None, stated: tuple[str, ...] | None, classes: int
) -> tuple[str, ...] | None:
    """Returns the names of so many classes: the data's, which accuracies were counted by, else the model's own."""
    for names in (named, stated):
        if names is not None and len(names) == classes:
            return tuple(name[:1000] for name in names)
    return None


def _tensor(info: TensorInfo, specs: tuple[TensorSpec, ...]) -> TensorEntry:
    known = next((spec for spec in specs if spec.name == info.name), info)
    sizes = tuple(f"size{place}" if size is None else size for place, size in enumerate(info.shape, start=1))
    return TensorEntry(name=info.name, dtype=info.dtype, shape=(BATCH, *sizes), low=known.low, high=known.high)


def describe_preprocessing(recipe: ResolvedPreprocessing | TokenRecipe, graph: Graph) -> Preprocessing:
    """Returns how samples became inputs, with nothing left to defaults."""
    if isinstance(recipe, TokenRecipe):
        alone = len(recipe.inputs) == 1
        roles = {spec.name: role_of(spec.name, alone=alone) or "" for spec in recipe.inputs} if recipe.tokenizer else {}
        lengths = {spec.shape for spec in recipe.inputs}
        same = recipe.tokenizer is not None and len(lengths) == 1
        fingerprint = None if recipe.tokenizer is None else recipe.tokenizer.fingerprint
        return TokenPreprocessing(tokenizer=fingerprint, length=lengths.pop()[0] if same else None, roles=roles)
    if recipe.raw:
        return RawPreprocessing()
    # Images become the inputs of a denoiser only once noise is in them; no program makes them from a file.
    noised = len(graph.inputs) > 1
    return ImagePreprocessing(
        kind="noised_image" if noised else "image",
        input=graph.inputs[0].name,
        color=_COLOURS.get(recipe.channels),
        size=recipe.size,
        resize=recipe.resized,
        keep_proportions=not recipe.squash,
        keep_exact=recipe.keep_exact,
        interpolation=recipe.interpolation,
        antialias=recipe.interpolation != "nearest",
        mean=recipe.mean,
        std=recipe.std,
    )


def _short(latency: LatencyReport) -> dict[str, float]:
    return {name: getattr(latency, name) for name in ("p50", "p90", "p95", "p99")}


def _figure(report: Report) -> FigureEntry | None:
    before, after = (_value(network) for network in (report.baseline, report.result))
    quality = report.result.quality or report.baseline.quality
    figure = report.figure if quality is None else quality.figure
    if before is None and after is None:
        return None
    return FigureEntry(
        name=figure.name,
        unit=figure.unit,
        higher_is_better=figure.higher_is_better,
        baseline=before,
        result=after,
        count=None if quality is None else quality.count,
    )


def _value(network: NetworkReport) -> float | None:
    if network.quality is not None:
        return network.quality.value
    return None if network.accuracy is None else network.accuracy.top1


def _runtime_version(runtime: str) -> dict[str, str]:
    try:
        return {runtime: version(runtime)}
    except PackageNotFoundError:
        return {}
