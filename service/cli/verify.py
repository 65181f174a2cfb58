"""`shoal verify`: whether a folder that a job delivered is whole, unchanged, and does what its report says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from service.cli.connect import tell
from service.cli.errors import CommandError, InputError, Status
from service.cli.options import json_option, pick, preprocessing_options
from service.cli.request import PreprocessingFlags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.delivery.checks import Check
    from service.delivery.verify import Verified
    from service.report.schema import Report

_LATENCY_HELP: Final = "Time model and original again; see whether speed-up and budget hold within their intervals."
_DATA_HELP: Final = "Labelled samples to compute the accuracy on again, prepared as the report says."
_SIGNS: Final = {"ok": "ok", "failed": "failed", "skipped": "-"}


@dataclass(frozen=True)
class Again:
    """Which figures are taken again.

    Attributes:
        latency: Whether times are.
        seconds: How long to time; None for as long as a report does.
        data: Samples to score on; None for none.
        tokenizer: Folder of the tokenizer that reads texts in them.
        samples: How they become inputs, where the report does not say.
    """

    latency: bool
    seconds: float | None
    data: str | None
    tokenizer: str | None
    samples: PreprocessingFlags


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--latency", is_flag=True, help=_LATENCY_HELP)
@click.option("--seconds", metavar="S", type=click.FloatRange(0.1, 3600), help="How long to time. Default 8.")
@click.option("--data", type=click.Path(), metavar="SPLIT", help=_DATA_HELP)
@click.option("--tokenizer", type=click.Path(file_okay=False), metavar="DIR", help="Folder of the model's tokenizer.")
@preprocessing_options
@json_option
def verify(folder: str, as_json: bool, **flags: Any) -> int:
    """Check a folder that a job delivered: its files, model, report and run.py.

    Needs no server. FOLDER may come from anybody: what is not as its manifest says is named, and not opened.

    Exits with 0 when every check passes, 1 when one fails.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{folder} is no folder; give one that `shoal optimize` or `shoal jobs download` wrote")
    again = Again(
        flags["latency"], flags["seconds"], flags["data"], flags["tokenizer"], pick(PreprocessingFlags, flags)
    )
    if again.seconds is not None and not again.latency:
        raise InputError("--seconds says how long --latency times; give --latency too")
    checks = _checks(place, again)
    passed = all(check.status != "failed" for check in checks)
    document = {"folder": folder, "passed": passed, "checks": [asdict(check) for check in checks]}
    click.echo(json.dumps(document, indent=2) if as_json else text(checks))
    return Status.DONE if passed else Status.FAILED


def _checks(folder: Path, again: Again) -> tuple[Check, ...]:
    from service.delivery.checks import skipped

    try:
        from service.delivery.verify import verify as verify_folder
    except ModuleNotFoundError as exc:
        raise CommandError(f"checking needs {exc.name}: pip install numpy onnx onnxruntime") from exc
    found = verify_folder(folder)
    asked = {"latency": again.latency, "accuracy": again.data is not None}
    if found.report is None or not found.passed:
        late = [skipped(name, "", "was not taken again: a check failed") for name, wanted in asked.items() if wanted]
        return (*found.checks, *late)
    checks = list(found.checks)
    if again.latency:
        checks += _latency(folder, found, found.report, again.seconds)
    if again.data is not None:
        checks.append(_accuracy(folder, found, found.report, again))
    return tuple(checks)


def _latency(folder: Path, found: Verified, report: Report, seconds: float | None) -> list[Check]:
    from deploy.errors import DeployError
    from deploy.measure.settings import TimingSettings
    from deploy.remeasure import remeasure
    from service.delivery.checks import ABSENT, failed, skipped
    from service.delivery.reportchecks import check_latency

    manifest = found.manifest
    assert manifest is not None
    span: dict[str, Any] = {} if seconds is None else {"min_seconds": seconds, "max_seconds": seconds}
    same = report.baseline.sha256 == report.result.sha256
    tell("timing the model" if same else "timing the model and the original")
    try:
        settings = TimingSettings(
            batch=report.budget.batch,
            percentile=f"p{report.budget.percentile:g}",
            threads=manifest.runtime.threads,
            runtime=manifest.runtime.name,
            device=manifest.device.local_name,
            seed=report.seed,
            **span,
        )
        baseline = None if same else folder / report.baseline.filename
        return check_latency(remeasure(folder / manifest.model.filename, baseline, settings), report)
    except ABSENT as exc:
        return [skipped("latency", "speed-up", f"was not taken again: {exc}")]
    except DeployError as exc:
        return [failed("latency", "speed-up", str(exc))]


def _accuracy(folder: Path, found: Verified, report: Report, again: Again) -> Check:
    from deploy.errors import DeployError
    from service.delivery.checks import ABSENT, failed, skipped
    from service.delivery.reportchecks import check_accuracy

    manifest = found.manifest
    assert manifest is not None
    assert again.data is not None
    if report.result.accuracy is None:
        return skipped("accuracy", "top-1", "the report states none, so there is nothing to hold against")
    try:
        from service.cli.accuracy import Question, score
        from service.data import Columns
    except ModuleNotFoundError as exc:
        raise CommandError(f"--data needs {exc.name}, which is not installed; install shoal[server]") from exc
    flags = again.samples
    columns = Columns(flags.text_column, flags.image_column or "", flags.label_column or "")
    tell(f"computing the accuracy on {Path(again.data).name}")
    question = Question(
        (folder / manifest.model.filename,),
        Path(again.data),
        _recipe(flags),
        manifest.runtime.name,
        columns,
        Path(again.tokenizer) if again.tokenizer else None,
        manifest.device.local_name,
    )
    try:
        accuracy = score(question)[0].accuracy
    except ABSENT as exc:
        return skipped("accuracy", "top-1", f"was not taken again: {exc}")
    except DeployError as exc:
        return failed("accuracy", "top-1", str(exc))
    if accuracy is None:
        return failed("accuracy", "top-1", "cannot be told on samples without one label each")
    return check_accuracy(accuracy, report)


def _recipe(flags: PreprocessingFlags) -> Any:
    from service.cli.measure import stated_preprocessing

    return stated_preprocessing(flags)


def text(checks: Sequence[Check]) -> str:
    """Returns the checks as text for people: a line each, and one in the end that says what came of them."""
    lines = [_line(check) for check in checks]
    failures = sum(check.status == "failed" for check in checks)
    verdict = "every check passed" if not failures else f"{failures} of {len(checks)} checks failed"
    return "\n".join([*lines, "", f"{verdict}."])


def _line(check: Check) -> str:
    words = " ".join(filter(None, (check.subject if check.subject != check.name else "", check.message)))
    if check.status == "failed" and (check.got or check.wanted):
        words += f": got {check.got or 'nothing'}, wanted {check.wanted or 'nothing'}"
    line = f"{_SIGNS[check.status]:<6}  {check.name:<8}  {words}".rstrip()
    # Names come from anybody's folder: nothing in them may steer the terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in line)
