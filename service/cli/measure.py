"""`shoal measure`: takes the figures of a report again, on this machine, in fresh processes, without any server."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli import figures
from service.cli.connect import tell
from service.cli.errors import CommandError, InputError, Status
from service.cli.options import PERCENTILE, json_option, pick, preprocessing_options, whole
from service.cli.request import PreprocessingFlags, check_file, preprocessing
from service.tasknames import OTHER_TASK_NAMES, TASK_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.measure.report import Measurement
    from deploy.remeasure import Remeasurement
    from service.judging.quality import Figure, Quality
    from service.judging.scoring import FileScore
    from service.spec import Preprocessing

_DATA_HELP: Final = (
    "Samples to compute the report's figure on, whatever the task: images, texts or ready inputs, as --data of "
    "`shoal optimize`. They are prepared as report.json beside ARTIFACT says, unless flags say otherwise. Without "
    "labels, or for the task none, --baseline must be there to compare with."
)
_TOKENIZER_HELP: Final = "Folder of the model that ARTIFACT was made of, whose tokenizer reads the texts in SPLIT."
_TASK_HELP: Final = (
    "What the outputs mean: classification, multi_label, denoising or none. Default: as report.json beside ARTIFACT "
    "says, else told by the model and the labels."
)
_PERCENTILES: Final = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True)
class Samples:
    """What to score on.

    Attributes:
        split: File or folder of samples.
        flags: How samples become inputs.
        tokenizer: Folder of the tokenizer, None where no texts are read.
        task: What the outputs mean, None where it is to be told.
    """

    split: Path
    flags: PreprocessingFlags
    tokenizer: Path | None = None
    task: str | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        timing: Latencies, of the file and of what it is compared with.
        score: Of the file, None without samples.
        baseline_score: Of what it is compared with, None without samples or baseline.
    """

    timing: Remeasurement
    score: FileScore | None = None
    baseline_score: FileScore | None = None


@click.command()
@click.argument("artifact", type=click.Path())
@click.option("--baseline", type=click.Path(), metavar="FILE", help="Time this file too, interleaved, and compare.")
@click.option("--batch", type=whole(1, 65_536), default=1, show_default=True, help="Samples per inference.")
@click.option("--threads", type=whole(1, 1024), default=1, show_default=True, help="Threads per inference.")
@click.option("--percentile", type=PERCENTILE, default="50", show_default=True, help="50, 90, 95 or 99.")
@click.option("--runtime", default="onnxruntime", show_default=True)
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda:N", help="What runs it.")
@click.option("--seconds", metavar="S", type=click.FloatRange(0.1, 3600), help="How long to time. Default 8.")
@click.option("--data", type=click.Path(), metavar="SPLIT", help=_DATA_HELP)
@click.option("--task", type=click.Choice([*TASK_NAMES, *OTHER_TASK_NAMES]), metavar="TASK", help=_TASK_HELP)
@click.option("--tokenizer", type=click.Path(file_okay=False), metavar="DIR", help=_TOKENIZER_HELP)
@preprocessing_options
@json_option
def measure(artifact: str, baseline: str | None, data: str | None, as_json: bool, **flags: Any) -> int:
    """Measure the latency of an ONNX file on this machine.

    The result has the same figures as a job's report, taken the same way.
    """
    for path, what in ((artifact, "ARTIFACT"), (baseline, "--baseline")):
        if path is not None:
            check_file(Path(path), what)
    files = (Path(artifact),) if baseline is None else (Path(artifact), Path(baseline))
    tokenizer, task = flags["tokenizer"], OTHER_TASK_NAMES.get(flags["task"], flags["task"])
    recipe, folder = pick(PreprocessingFlags, flags), None if tokenizer is None else Path(tokenizer)
    samples = None if data is None else Samples(Path(data), recipe, folder, task)
    named = ("percentile", "seconds", "batch", "threads", "runtime", "device")
    settings = _settings(**{name: flags[name] for name in named})
    stated_preprocessing(recipe)  # what the flags say wrong is said first
    measured = _measure(files, settings, samples)
    click.echo(json.dumps(as_document(measured), indent=2) if as_json else text(measured))
    return Status.DONE


def stated_preprocessing(flags: PreprocessingFlags) -> Preprocessing | None:
    """Returns what the flags say, checked by the rules of the API; None if they say nothing."""
    from google.protobuf.json_format import MessageToDict
    from pydantic import ValidationError

    from service.spec import Preprocessing

    message = preprocessing(flags)
    if not message.ByteSize():
        return None
    try:
        return Preprocessing.model_validate(MessageToDict(message, preserving_proto_field_name=True))
    except ValidationError as exc:
        raise InputError(
            *(f"preprocessing: {each['msg'].removeprefix('Value error, ')}" for each in exc.errors())
        ) from exc


def _settings(percentile: float, seconds: float | None, **rest: Any) -> dict[str, Any]:
    name = f"p{percentile:g}"
    if name not in _PERCENTILES:
        raise InputError(f"--percentile {percentile:g} is not measured; choose one of 50, 90, 95, 99")
    span = {} if seconds is None else {"min_seconds": seconds, "max_seconds": seconds}
    return {"percentile": name, **rest, **span}


def _measure(files: tuple[Path, ...], settings: dict[str, Any], samples: Samples | None) -> Measured:
    try:
        from deploy import errors
        from deploy.measure.settings import TimingSettings
        from deploy.remeasure import remeasure
    except ModuleNotFoundError as exc:
        raise CommandError(f"measuring needs {exc.name}, which is not installed; install shoal[server]") from exc
    try:
        names = " and ".join(path.name for path in files)
        scores = () if samples is None else _scores(files, samples, settings)
        tell(f"timing {names}")
        timing = remeasure(files[0], files[1] if len(files) > 1 else None, TimingSettings(**settings))
        return Measured(timing, *scores)
    except (
        errors.ModelFileError,
        errors.DataError,
        errors.TimingSettingsError,
        errors.RuntimeMissingError,
        errors.DeviceMissingError,
    ) as exc:
        raise InputError(str(exc)) from exc
    except errors.DeployError as exc:
        raise CommandError(str(exc)) from exc


def _scores(files: tuple[Path, ...], samples: Samples, settings: dict[str, Any]) -> tuple[FileScore, ...]:
    from service.cli.accuracy import Question, score
    from service.data import Columns

    tell(f"computing the figure on {samples.split.name}")
    flags = samples.flags
    return score(
        Question(
            files,
            samples.split,
            stated_preprocessing(flags),
            settings["runtime"],
            Columns(flags.text_column, flags.image_column or "", flags.label_column or ""),
            samples.tokenizer,
            settings["device"],
            samples.task,
        )
    )


def as_document(measured: Measured) -> dict[str, Any]:
    """Returns the measurement as the documented JSON object."""
    timing, settings, ratio = measured.timing.candidate, measured.timing.candidate.settings, measured.timing.ratio
    baseline = measured.timing.baseline
    return {
        **_figures(timing, measured.score),
        "baseline": _figures(baseline, measured.baseline_score) if baseline else None,
        "speedup": ratio.speedup if ratio else None,
        "speedup_interval": [ratio.ci_low, ratio.ci_high] if ratio else None,
        "processes": timing.processes,
        "percentile": float(settings.percentile.removeprefix("p")),
        "batch": settings.batch,
        "threads": settings.threads,
        "runtime": f"{timing.runtime.name} {timing.runtime.version}",
        "device": timing.device.title,
        "warnings": list(_warnings(measured)),
    }


def _figures(timing: Measurement, score: FileScore | None) -> dict[str, Any]:
    times, accuracy = timing.distribution, None if score is None else score.accuracy
    return {
        "file": timing.file,
        "sha256": timing.sha256,
        "latency_ms": {name: 1e3 * getattr(times, name) for name in (*_PERCENTILES, "mean", "min")},
        "count": times.n,
        "accuracy": accuracy.top1 if accuracy else None,
        "accuracy_interval": [accuracy.ci_low, accuracy.ci_high] if accuracy else None,
        "accuracy_count": accuracy.n if accuracy else None,
        "quality": None if score is None or score.quality is None else _quality(score.quality),
    }


def _quality(found: Quality) -> dict[str, Any]:
    return {
        "name": found.figure.name,
        "unit": found.figure.unit,
        "higher_is_better": found.figure.higher_is_better,
        # JSON has no infinity: outputs that are no numbers have no value.
        "value": found.value if math.isfinite(found.value) else None,
        "interval": None if found.low is None else [found.low, found.high],
        "count": found.count,
    }


def _warnings(measured: Measured) -> dict[str, None]:
    baseline = measured.timing.baseline
    return dict.fromkeys((*measured.timing.candidate.warnings, *(baseline.warnings if baseline else ())))


def text(measured: Measured) -> str:
    """Returns the measurement as text for people."""
    candidate, ratio = measured.timing.candidate, measured.timing.ratio
    lines = [_heading(candidate), "", *_columns(measured)]
    if ratio is not None:
        processes = f"{ratio.processes} processes" if ratio.processes > 1 else "one process"
        interval = f"95 % interval {ratio.ci_low:.2f} to {ratio.ci_high:.2f}, {processes}"
        lines += ["", f"{ratio.speedup:.2f}x as fast as the baseline at {ratio.percentile} ({interval})"]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in _warnings(measured))])


def _heading(timing: Measurement) -> str:
    threads = f"{timing.settings.threads} thread{'s' if timing.settings.threads > 1 else ''}"
    runtime = f"{timing.runtime.name} {timing.runtime.version}"
    return f"{timing.file} on {timing.device.title}, {runtime}, batch {timing.settings.batch}, {threads}"


def _columns(measured: Measured) -> Iterator[str]:
    baseline = measured.timing.baseline
    columns = [("file", measured.timing.candidate)]
    if baseline is not None:
        columns.insert(0, ("baseline", baseline))
    rows = [["", *(heading for heading, _ in columns)]]
    for name in _PERCENTILES:
        times = (1e3 * getattr(timing.distribution, name) for _, timing in columns)
        rows.append([f"{name} ms", *(figures.significant(time, 4) for time in times)])
    rows.append(["runs", *(str(timing.distribution.n) for _, timing in columns)])
    found = [each.quality for each in (measured.baseline_score, measured.score) if each is not None and each.quality]
    if found:
        rows.append(["accuracy" if _is_accuracy(found[-1]) else "quality", *map(_value, found)])
        rows.append(["samples", *(str(one.count) for one in found)])
    for first, *cells in rows:
        yield (f"  {first:<8}" + "".join(f"  {cell:>10}" for cell in cells)).rstrip()
    if found and not _is_accuracy(found[-1]):
        yield f"  quality: {_meaning(found[-1].figure)}"


def _is_accuracy(found: Quality) -> bool:
    return found.figure.name == "top-1 accuracy"


def _value(found: Quality) -> str:
    return figures.percent(found.value) if found.figure.unit == "fraction" else figures.significant(found.value, 4)


def _meaning(figure: Figure) -> str:
    unit = "" if figure.unit == "fraction" else f", {figure.unit}"
    return f"{figure.name}{unit}, {'higher' if figure.higher_is_better else 'lower'} is better"
