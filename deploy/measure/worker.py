"""The fresh process that times: `python -m deploy.measure.worker`, one JSON request in, one JSON answer out.

It shares nothing with the process that asks: the caller's heap, threads and imports cannot slow a model down. It
ends by itself when its caller dies: a thread waits for the end of standard input.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.caller import end_with_caller, private_stdout, read_line
from deploy.errors import DeployError
from deploy.machine import ClockState, describe_device, read_clock_state
from deploy.measure.profiling import profile_file
from deploy.measure.protocol import interleave
from deploy.measure.settings import TimingSettings
from deploy.runtimes import Session, SessionSettings, find_runtime


def main() -> None:
    """Reads a request, times, answers."""
    answer = private_stdout()
    request = json.loads(read_line())
    end_with_caller()
    json.dump(_answer(request), answer)
    answer.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        paths, settings = [Path(path) for path in request["paths"]], TimingSettings(**request["settings"])
        return _profile(paths, settings) if request["what"] == "profile" else _time(paths, settings, request["limit"])
    except DeployError as exc:
        return {"error": {"kind": type(exc).__name__, "message": str(exc)}}
    except Exception as exc:  # noqa: BLE001  the process boundary: whatever it is, the caller must be told
        traceback.print_exc()
        return {"error": {"kind": "MeasureError", "message": f"the timing process failed: {type(exc).__name__}: {exc}"}}


def _time(paths: Sequence[Path], settings: TimingSettings, limit: float) -> dict[str, Any]:
    runtime = find_runtime(settings.runtime, settings.device)
    loading = SessionSettings(settings.threads, device=settings.device, batch=settings.batch)
    sessions = [runtime.load(path, loading) for path in paths]
    runs = [_bind(session, settings) for session in sessions]
    before = read_clock_state(settings.device)
    result = interleave(runs, settings, affordable_seconds=limit)
    after = read_clock_state(settings.device)
    return {
        "files": [
            {"runtime": asdict(session.describe()), **asdict(turns)}
            for session, turns in zip(sessions, result.turns, strict=True)
        ],
        "orders": result.orders,
        "complete": result.complete,
        "device": asdict(describe_device(settings.device)),
        "conditions": _conditions(before, after),
    }


def _profile(paths: Sequence[Path], settings: TimingSettings) -> dict[str, Any]:
    return {"files": [profile_file(path, settings) for path in paths]}


def _bind(session: Session, settings: TimingSettings) -> Any:
    inputs = [spec.random(settings.batch, settings.seed + index) for index, spec in enumerate(session.inputs)]
    session.run(inputs)
    return session.bind(inputs)


def _conditions(before: ClockState, after: ClockState) -> dict[str, Any]:
    elapsed = after.monotonic_seconds - before.monotonic_seconds
    machine = elapsed * (os.cpu_count() or 1)
    return {
        "before": asdict(before),
        "after": asdict(after),
        "steal_fraction": _share(before.steal_seconds, after.steal_seconds, machine),
        "others_fraction": _share(before.others_seconds, after.others_seconds, machine),
        "waiting_fraction": _share(before.waited_seconds, after.waited_seconds, elapsed),
    }


def _share(before: float | None, after: float | None, total: float) -> float | None:
    if before is None or after is None or total <= 0:
        return None
    return (after - before) / total


if __name__ == "__main__":
    main()
