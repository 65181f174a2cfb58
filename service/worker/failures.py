"""Why a worker has no result, in words for the caller."""

from __future__ import annotations

import signal

from service.faults import TIME_LIMIT, WORKER_DIED, WORKER_PROTOCOL
from service.jobs.job import Failure
from service.worker.process import Exit


def has_died(ended: Exit) -> bool:
    """Returns whether a worker died: it said nothing last, and was neither stopped nor killed for a reason of ours."""
    said = ended.result is not None or ended.error is not None or ended.garbage is not None
    return not (said or ended.stopped or ended.expired or ended.excess is not None)


def failure_of(ended: Exit, seconds: float) -> Failure:
    """Returns why a worker that was not stopped has no result.

    Args:
        ended: How it ended.
        seconds: Its time limit.
    """
    if ended.error is not None:
        return Failure(reason=ended.error.reason, message=ended.error.message, blame=ended.error.blame)
    if ended.garbage is not None:
        return Failure(reason=WORKER_PROTOCOL.reason, message=ended.garbage, blame=WORKER_PROTOCOL.blame)
    if ended.excess is not None:
        fault = ended.excess.fault
        return Failure(reason=fault.reason, message=ended.excess.message, blame=fault.blame)
    if ended.expired:
        message = f"the time limit of {seconds:g} s ended before there was anything to return; allow more time"
        return Failure(reason=TIME_LIMIT.reason, message=message, blame=TIME_LIMIT.blame)
    return Failure(reason=WORKER_DIED.reason, message=_death(ended.returncode), blame=WORKER_DIED.blame)


_HINTS = {
    signal.SIGKILL: "most likely the machine ran out of memory; use a smaller batch, or fewer workers",
    signal.SIGSEGV: "a native library crashed; if the same job dies again, please report it with the model",
    signal.SIGABRT: "a native library gave up; if the same job dies again, please report it with the model",
    signal.SIGILL: "a native library was built for another processor",
    signal.SIGSYS: "it made a system call that no job makes (sandbox); the job's log on the server says more",
    signal.SIGTERM: "something outside of the server stopped it",
}


def _death(returncode: int) -> str:
    if returncode >= 0:
        return f"the worker exited with status {returncode} without a result; the job's log on the server says more"
    try:
        number = signal.Signals(-returncode)
    except ValueError:
        return f"the worker was killed by signal {-returncode}; the job's log on the server says more"
    hint = _HINTS.get(number, "the job's log on the server says more")
    return f"the worker was killed by {number.name}: {hint}"
