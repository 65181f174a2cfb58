"""Where the time goes in both shipped files, layer by layer, for the report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from compressors.memory import Memory, key_of
from deploy.artifact import hash_model
from deploy.bench import Bench
from deploy.errors import DeployError
from deploy.layertimes import lay_times
from deploy.measure.profiling import Profile, profile
from deploy.measure.settings import TimingSettings
from deploy.runtimes import LayerTime
from service.report.schema import AddedReport, NetworkReport, ProfileReport, Report
from service.resuming.remembered import recalled

_LOG = logging.getLogger(__name__)

Profiles = tuple[Profile | None, ...]


def profiled(files: Sequence[Path], settings: TimingSettings, memory: Memory, bench: Bench) -> Profiles:
    """Returns a profile for each file; None where there is none, which ends no job.

    Args:
        files: Those that were timed.
        settings: How.
        memory: Of the job: what an earlier attempt found out is not found out again.
        bench: The job's device.
    """

    def ask() -> Profiles:
        try:
            return profile(files, settings, bench=bench)
        except DeployError as exc:
            _LOG.warning("the report has no times by layer: %s", exc)
            return tuple(None for _ in files)

    found = recalled(memory, key_of("profile", *(hash_model(path)[0] for path in files)), Profiles, ask)
    return found if len(found) == len(files) else ask()


def with_times(report: Report, files: Sequence[Path], profiles: Profiles) -> Report:
    """Returns the report with the time of each layer in it.

    Args:
        report: Without them.
        files: The original and, where the result is another file, the result.
        profiles: One for each.
    """
    networks = [
        network if found is None else _timed(network, path, found)
        for network, path, found in zip((report.baseline, report.result), files, profiles, strict=False)
    ]
    if not networks:
        return report
    baseline, same = networks[0], report.result.sha256 == report.baseline.sha256
    result = _as(report.result, baseline) if same else networks[-1]
    return report.model_copy(update={"baseline": baseline, "result": result})


def _as(network: NetworkReport, other: NetworkReport) -> NetworkReport:
    return network.model_copy(update={"layers": other.layers, "profile": other.profile})


def _timed(network: NetworkReport, path: Path, found: Profile) -> NetworkReport:
    laid = lay_times(path, found.layers)
    layers = tuple(
        layer.model_copy(update={"milliseconds": None if seconds is None else 1e3 * seconds})
        for layer, seconds in zip(network.layers, laid.seconds, strict=True)
    )
    total = 1e3 * sum(layer.seconds for layer in found.layers)
    described = ProfileReport(milliseconds=total, runs=found.runs, added=_added(laid.added))
    return network.model_copy(update={"layers": layers, "profile": described})


def _added(times: Sequence[LayerTime]) -> tuple[AddedReport, ...]:
    """Returns the time of operators that are none of the file's, by type, the longest first."""
    sums: dict[str, tuple[int, float]] = {}
    for time in times:
        count, seconds = sums.get(time.op, (0, 0.0))
        sums[time.op] = (count + 1, seconds + time.seconds)
    longest = sorted(sums.items(), key=lambda item: -item[1][1])
    return tuple(AddedReport(op=op, count=count, milliseconds=1e3 * seconds) for op, (count, seconds) in longest)
