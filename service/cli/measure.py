"""`shoal measure`: takes the figures of a report again, on this machine, in fresh processes, without any server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli import figures
from service.cli.connect import tell
from service.cli.errors import CommandError, InputError, Status
from service.cli.options import PERCENTILE, json_option, pick, preprocessing_options, whole
from service.cli.request import PreprocessingFlags, check_file, preprocessing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.evaluate import Accuracy
    from deploy.measure.report import Measurement
    from deploy.remeasure import Remeasurement
    from service.spec import Preprocessing

_DATA_HELP: Final = (
    "Labelled samples to compute the accuracy on: a Parquet or .npz file or a folder with one folder per class. They "
    "are prepared as report.json beside ARTIFACT says, unless flags say otherwise."
)
_TOKENIZER_HELP: Final = "Folder of the model that ARTIFACT was made of, whose tokenizer reads the texts in SPLIT."
_PERCENTILES: Final = ("p50", "p90", "p95", "p99")


Samples = tuple[PreprocessingFlags, str | None]
"""How samples become inputs, and the folder of the tokenizer."""


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        timing: Latencies, of the file and of what it is compared with.
        accuracy: Of the file, None without samples.
        baseline_accuracy: Of what it is compared with, None without samples or baseline.
    """

    timing: Remeasurement
    accuracy: Accuracy | None = None
    baseline_accuracy: Accuracy | None = None


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
    samples = (pick(PreprocessingFlags, flags), flags["tokenizer"])
    named = ("percentile", "seconds", "batch", "threads", "runtime", "device")
    settings = _settings(**{name: flags[name] for name in named})
    measured = _measure(files, settings, None if data is None else Path(data), samples)
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


def _measure(files: tuple[Path, ...], settings: dict[str, Any], split: Path | None, samples: Samples) -> Measured:
    try:
        from deploy import errors
        from deploy.measure.settings import TimingSettings
        from deploy.remeasure import remeasure
    except ModuleNotFoundError as exc:
        raise CommandError(f"measuring needs {exc.name}, which is not installed; install shoal[server]") from exc
    recipe = stated_preprocessing(samples[0])
    try:
        names = " and ".join(path.name for path in files)
        scores = (
            []
            if split is None
            else _accuracies(files, split, (recipe, *samples), (settings["runtime"], settings["device"]))
        )
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


def _accuracies(
    files: tuple[Path, ...],
    split: Path,
    how: tuple[Preprocessing | None, PreprocessingFlags, str | None],
    where: tuple[str, str],
) -> tuple[Accuracy, ...]:
    from service.cli.accuracy import Question, score
    from service.data import Columns

    tell(f"computing the accuracy on {split.name}")
    recipe, flags, tokenizer = how
    columns = Columns(flags.text_column, flags.image_column or "", flags.label_column or "")
    runtime, device = where
    return score(Question(files, split, recipe, runtime, columns, Path(tokenizer) if tokenizer else None, device))


def as_document(measured: Measured) -> dict[str, Any]:
    """Returns the measurement as the documented JSON object."""
    timing, settings, ratio = measured.timing.candidate, measured.timing.candidate.settings, measured.timing.ratio
    baseline = measured.timing.baseline
    return {
        **_figures(timing, measured.accuracy),
        "baseline": _figures(baseline, measured.baseline_accuracy) if baseline else None,
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


def _figures(timing: Measurement, accuracy: Accuracy | None) -> dict[str, Any]:
    times = timing.distribution
    return {
        "file": timing.file,
        "sha256": timing.sha256,
        "latency_ms": {name: 1e3 * getattr(times, name) for name in (*_PERCENTILES, "mean", "min")},
        "count": times.n,
        "accuracy": accuracy.top1 if accuracy else None,
        "accuracy_interval": [accuracy.ci_low, accuracy.ci_high] if accuracy else None,
        "accuracy_count": accuracy.n if accuracy else None,
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
    columns = [("file", measured.timing.candidate, measured.accuracy)]
    if baseline is not None:
        columns.insert(0, ("baseline", baseline, measured.baseline_accuracy))
    rows = [["", *(heading for heading, _, _ in columns)]]
    for name in _PERCENTILES:
        times = (1e3 * getattr(timing.distribution, name) for _, timing, _ in columns)
        rows.append([f"{name} ms", *(figures.significant(time, 4) for time in times)])
    rows.append(["runs", *(str(timing.distribution.n) for _, timing, _ in columns)])
    if measured.accuracy is not None:
        rows.append(["accuracy", *(figures.percent(score.top1) if score else "" for _, _, score in columns)])
        rows.append(["samples", *(str(score.n) if score else "" for _, _, score in columns)])
    for first, *cells in rows:
        yield (f"  {first:<8}" + "".join(f"  {cell:>10}" for cell in cells)).rstrip()
