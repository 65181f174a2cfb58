"""Where the time of a network goes, told by the runtime's own profiler in a fresh process.

Profiling slows a run, so nothing here is a latency; the shares are what counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.bench import Bench, LocalBench
from deploy.measure.settings import TimingSettings
from deploy.runtimes import LayerTime, SessionSettings, find_runtime

SECONDS = 1.0
"""Of runs without the profiler, how long those that are profiled would take."""

MAX_RUNS = 30

MAX_SECONDS = 2.0
"""A network that takes longer for one run is not profiled: a report does not wait minutes for it."""


@dataclass(frozen=True)
class Profile:
    """The operators of one file.

    Attributes:
        layers: As the runtime ran them.
        runs: How many runs they are averaged over.
    """

    layers: tuple[LayerTime, ...]
    runs: int


def profile(
    files: Sequence[Path],
    settings: TimingSettings,
    cancel: threading.Event | None = None,
    bench: Bench | None = None,
) -> tuple[Profile | None, ...]:
    """Returns the profile of each file, None where the runtime has no profiler or one run takes over `MAX_SECONDS`.

    Args:
        files: Model files.
        settings: Batch, threads, runtime and seed count.
        cancel: Set it from another thread to stop.
        bench: The device; by default this machine with the settings' runtime.

    Raises:
        ModelFileError: If a file is missing or cannot be loaded.
        RuntimeMissingError: If the runtime is not installed.
        MeasureError: If the process dies or hangs.
        MeasureCancelledError: If `cancel` was set.
    """
    answer = (bench or LocalBench(settings.runtime, settings.device)).profile(files, settings, cancel)
    return tuple(None if entry is None else _profile(entry) for entry in answer["files"])


def _profile(entry: dict[str, Any]) -> Profile:
    return Profile(tuple(LayerTime(**layer) for layer in entry["layers"]), entry["runs"])


def profile_file(path: Path, settings: TimingSettings) -> dict[str, Any] | None:
    """Returns a file's operators as plain values; runs in the fresh process."""
    runtime = find_runtime(settings.runtime, settings.device)
    how = SessionSettings(settings.threads, device=settings.device, batch=settings.batch)
    session = runtime.load(path, how)
    inputs = [spec.random(settings.batch, settings.seed + index) for index, spec in enumerate(session.inputs)]
    session.run(inputs)
    start = time.perf_counter()
    session.run(inputs)
    took = max(time.perf_counter() - start, 1e-9)
    if took > MAX_SECONDS:
        return None
    runs = min(max(int(SECONDS / took), 2), MAX_RUNS)
    layers = runtime.profile(path, how, inputs, runs)
    return None if layers is None else {"layers": [asdict(layer) for layer in layers], "runs": runs}
