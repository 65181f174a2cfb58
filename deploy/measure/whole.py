"""Measures whole model files."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from deploy.artifact import hash_model
from deploy.bench import Bench, LocalBench
from deploy.errors import ModelFileError
from deploy.gpu import GpuState
from deploy.jetson import JetsonState
from deploy.machine import ClockState, read_device
from deploy.measure.distribution import describe_times, thin
from deploy.measure.report import Conditions, Measurement, judge, judge_conditions
from deploy.measure.settings import TimingSettings
from deploy.runtimes.base import RuntimeInfo

_PLOTTED = 400


def measure(
    files: Sequence[Path],
    settings: TimingSettings | None = None,
    cancel: threading.Event | None = None,
    bench: Bench | None = None,
) -> tuple[Measurement, ...]:
    """Returns the latency of every file, all timed interleaved in the same fresh processes.

    Args:
        files: Model files, at least one.
        settings: How they are timed.
        cancel: Set it from another thread to stop.
        bench: The device; by default this machine with the settings' runtime.

    Raises:
        ModelFileError: If a file is missing or cannot be loaded.
        RuntimeMissingError: If the runtime is not installed there.
        MeasureError: If the timing process dies or hangs.
        MeasureCancelledError: If `cancel` was set.
    """
    settings = settings or TimingSettings()
    if not files:
        msg = "there is no model file to measure"
        raise ModelFileError(msg)
    hashes = [hash_model(path)[0] for path in files]
    answer = (bench or LocalBench(settings.runtime, settings.device)).time(files, settings, cancel)
    session = uuid.uuid4().hex
    return tuple(
        _measurement(path, sha256, timed, answer, (settings, session))
        for path, sha256, timed in zip(files, hashes, answer["files"], strict=True)
    )


def _measurement(
    path: Path, sha256: str, timed: dict[str, Any], answer: dict[str, Any], context: tuple[TimingSettings, str]
) -> Measurement:
    settings, session = context
    device = read_device(answer["device"])
    conditions = _conditions(answer["conditions"])
    rounds = tuple(tuple(block) for block in timed["rounds"])
    distribution = describe_times(rounds)
    warnings = [*judge_conditions(conditions, device), *judge(distribution, rounds, settings.percentile)]
    if not answer["complete"]:
        warnings.append(f"stopped after {settings.max_seconds:g} s, before the times were known as well as asked for")
    if not timed["stable"]:
        warnings.append(f"the times were not stable after {settings.warmup_seconds:g} s of warm-up")
    return Measurement(
        file=path.name,
        sha256=sha256,
        session=session,
        distribution=distribution,
        preempted=timed["preempted"],
        samples=thin(rounds, _PLOTTED),
        settings=settings,
        runtime=RuntimeInfo(**{**timed["runtime"], "providers": tuple(timed["runtime"]["providers"])}),
        device=device,
        conditions=conditions,
        warnings=tuple(warnings),
        rounds=rounds,
        process_rounds=tuple(answer.get("process_rounds", ())),
    )


def _conditions(values: dict[str, Any]) -> Conditions:
    return Conditions(
        before=_state(values["before"]),
        after=_state(values["after"]),
        steal_fraction=values["steal_fraction"],
        others_fraction=values["others_fraction"],
        waiting_fraction=values["waiting_fraction"],
    )


def _state(values: dict[str, Any]) -> ClockState:
    load, gpu, jetson = values["load_average"], values["gpu"], values["jetson"]
    typed = {
        "mhz": tuple(values["mhz"]),
        "load_average": tuple(load) if load else None,
        "gpu": GpuState(**_known(GpuState, {**gpu, "throttled": tuple(gpu["throttled"])})) if gpu else None,
        "jetson": JetsonState(**_known(JetsonState, jetson)) if jetson else None,
    }
    return ClockState(**_known(ClockState, {**values, **typed}))


def _known(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a dataclass's fields: the agent that measured may be newer than this, and tell more."""
    return {field.name: values[field.name] for field in fields(kind) if field.name in values}
