"""Checks a delivered folder, in an order in which nothing is opened that was not found to be harmless before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service.delivery.checks import Check, failed, ok, skipped
from service.delivery.enginechecks import check_engines
from service.delivery.files import check_files, check_runner
from service.delivery.manifest import FILENAME, Manifest, ManifestError, read_manifest
from service.delivery.reportchecks import check_report, read_report
from service.report.schema import Report


@dataclass(frozen=True)
class Verified:
    """What came of all checks.

    Attributes:
        checks: In the order they were made.
        manifest: None where it cannot be read.
        report: None where it cannot be read.
    """

    checks: tuple[Check, ...]
    manifest: Manifest | None = None
    report: Report | None = None

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "failed" for check in self.checks)


def verify(folder: Path) -> Verified:
    """Returns what is right and wrong about a folder; it may come from anybody."""
    try:
        manifest = read_manifest(folder)
    except ManifestError as exc:
        return Verified((failed("manifest", FILENAME, str(exc)),))
    count = len(manifest.files)
    checks = [ok("manifest", FILENAME, f"version {manifest.schema_version}, {count} files, job {manifest.job}")]
    checks += check_files(folder, manifest)
    if any(check.status == "failed" for check in checks):
        rest = skipped("model", manifest.model.filename, "was not opened: the files are not those of the manifest")
        return Verified((*checks, rest), manifest)
    checks += [check_runner(manifest), *check_engines(manifest)]
    try:
        report = read_report(folder)
    except ManifestError as exc:
        return Verified((*checks, failed("report", "report.json", str(exc)), *_check_model(folder, manifest)), manifest)
    checks += [*check_report(folder, manifest, report), *_check_model(folder, manifest)]
    return Verified(tuple(checks), manifest, report)


def _check_model(folder: Path, manifest: Manifest) -> list[Check]:
    name = manifest.model.filename
    try:
        from service.delivery.modelchecks import check_model, check_run
    except ModuleNotFoundError as exc:
        return [failed("model", name, f"cannot be opened: {exc.name} is not installed; pip install onnx onnxruntime")]
    checks = check_model(folder, manifest)
    if any(check.status == "failed" for check in checks):
        return [*checks, skipped("run", name, "was not run: it is not the model of the manifest")]
    return [*checks, *check_run(folder, manifest)]
