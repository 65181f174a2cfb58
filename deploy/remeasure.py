"""Measures a model file again, the way the report did, for `shoal measure`."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from deploy.measure.report import Measurement, Ratio, compare
from deploy.measure.settings import TimingSettings
from deploy.measure.whole import measure
from deploy.modelfile import open_model


@dataclass(frozen=True)
class Remeasurement:
    """What `remeasure` found.

    Attributes:
        candidate: The file's latency.
        baseline: The baseline's, timed interleaved with it; None where none was given.
        ratio: How many times faster the file is than the baseline; None where none was given.
    """

    candidate: Measurement
    baseline: Measurement | None
    ratio: Ratio | None


def remeasure(
    file: Path,
    baseline: Path | None = None,
    settings: TimingSettings | None = None,
    cancel: threading.Event | None = None,
) -> Remeasurement:
    """Returns the file's latency and, with a baseline, how many times faster it is.

    Args:
        file: An ONNX file; it may come from anybody.
        baseline: Another one, to compare with.
        settings: How they are timed; as reports are by default.
        cancel: Set it from another thread to stop.

    Raises:
        ModelFileError: If a file is missing, damaged, or refers to files outside its folder.
        RuntimeMissingError: If the runtime is not installed.
        MeasureError: If the timing process dies or hangs.
        MeasureCancelledError: If `cancel` was set.
    """
    files = [file] if baseline is None else [baseline, file]
    for path in files:
        open_model(path)
    measurements = measure(files, settings, cancel)
    if baseline is None:
        return Remeasurement(measurements[0], None, None)
    reference, candidate = measurements
    return Remeasurement(candidate, reference, compare(reference, candidate))
