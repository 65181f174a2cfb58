"""Runs the timing worker as a fresh process and turns whatever happens to it into an answer or a clear error.

`deploy.measure.several` says how many of them make a measurement.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from deploy.errors import TOLD, MeasureCancelledError, MeasureError
from deploy.measure.settings import TimingSettings
from deploy.measure.turn import wait_for_turn
from deploy.runtimes import find_runtime

# -P: a file called json.py in the working folder must not be imported in place of the real one.
_COMMAND = (sys.executable, "-P", "-m", "deploy.measure.worker")
_ROOT = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.1
_STARTUP_SECONDS = 120.0
_OVERTIME = 5.0


@dataclass(frozen=True)
class Errand:
    """What a worker is started for.

    Attributes:
        what: `time` or `profile`.
        name: What errors call the process.
        limit_seconds: What a network's slowness is held against, as `max_seconds`; None for the settings' own.
    """

    what: str = "time"
    name: str = "the timing process"
    limit_seconds: float | None = None


def ask_worker(
    paths: Sequence[Path],
    settings: TimingSettings,
    cancel: threading.Event | None = None,
    errand: Errand | None = None,
) -> dict[str, Any]:
    """Returns the answer of one fresh process. The caller has waited for its turn (`deploy.measure.turn`).

    Args:
        paths: Model files, loaded in this order.
        settings: How they are timed, all of it in this process.
        cancel: Set it from another thread to stop; the process is killed within a fraction of a second.
        errand: What it is started for; timing by default.

    Raises:
        ModelFileError: If a file cannot be loaded.
        RuntimeMissingError: If the runtime is not installed, or does not run on the device.
        DeviceMissingError: If the device is not there.
        MeasureError: If the process dies, hangs, or says nothing that can be read.
        MeasureCancelledError: If `cancel` was set.
    """
    errand = errand or Errand()
    limit = errand.limit_seconds or settings.max_seconds
    request = {
        "what": errand.what,
        "paths": [str(path.resolve()) for path in paths],
        "settings": asdict(settings),
        "limit": limit,
    }
    process = _start()
    output: list[str] = []
    errors_: list[str] = []
    readers = [_reader(process.stdout, output), _reader(process.stderr, errors_)]
    try:
        _send(process, request)
        patience = settings.timeout_seconds or _patience(len(paths), settings, limit)
        _wait(process, patience, cancel, errand.name)
    finally:
        _stop(process)
        for reader in readers:
            reader.join()
    return _decode(process.returncode, "".join(output), "".join(errors_), errand.name)


def profile_in_fresh_process(
    paths: Sequence[Path], settings: TimingSettings, cancel: threading.Event | None = None
) -> dict[str, Any]:
    """Returns what each operator of each file takes, once no other process on this machine measures.

    Raises what `ask_worker` raises.
    """
    with wait_for_turn(cancel):
        return ask_worker(paths, settings, cancel, Errand("profile"))


def _start() -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(  # noqa: S603  our own module, started with our own interpreter
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONPATH": path},
    )


def _reader(stream: IO[str] | None, into: list[str]) -> threading.Thread:
    assert stream is not None

    def read() -> None:
        with stream:
            into.append(stream.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def _send(process: subprocess.Popen[str], request: dict[str, Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        # It died before it read the request; what it said on the way is reported from its exit status.
        return


def _patience(files: int, settings: TimingSettings, limit: float) -> float:
    loading = find_runtime(settings.runtime, settings.device).load_seconds
    return _STARTUP_SECONDS + files * (settings.warmup_seconds + loading) + _OVERTIME * limit


def _wait(process: subprocess.Popen[str], patience: float, cancel: threading.Event | None, name: str) -> None:
    deadline = time.monotonic() + patience
    while process.poll() is None:
        if cancel is not None and cancel.is_set():
            msg = "the measurement was cancelled"
            raise MeasureCancelledError(msg)
        if time.monotonic() > deadline:
            msg = f"{name} gave no answer within {patience:.0f} s and was killed"
            raise MeasureError(msg)
        try:
            process.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    assert process.stdin is not None
    try:
        process.stdin.close()
    except BrokenPipeError:
        return


def _decode(status: int, output: str, said: str, name: str) -> dict[str, Any]:
    if status < 0:
        hint = ": out of memory, or somebody killed it" if -status == signal.SIGKILL else ""
        msg = f"{name} died from signal {signal.Signals(-status).name}{hint}"
        raise MeasureError(msg)
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError as exc:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        msg = f"{name} ended with status {status} and no answer: {last}"
        raise MeasureError(msg) from exc
    if "error" in answer:
        raise TOLD.get(answer["error"]["kind"], MeasureError)(answer["error"]["message"])
    return answer
