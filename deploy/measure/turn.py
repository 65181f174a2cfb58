"""One measurement at a time on one machine: two at once would time each other."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.errors import MeasureCancelledError, MeasureError

LOCK_VARIABLE = "SHOAL_TIMING_LOCK"
"""Names the file to processes whose folder for temporary files is their own."""
_POLL_SECONDS = 0.1
_waits: list[float] = []


def seconds_waited() -> float:
    """Returns how long this process has waited for its turns so far, all together."""
    return sum(_waits)


def lock_file() -> Path:
    """Returns the file that whoever measures on this machine, as this user, holds locked."""
    if told := os.environ.get(LOCK_VARIABLE):
        return Path(told)
    user = os.getuid() if hasattr(os, "getuid") else "any"
    return Path(tempfile.gettempdir()) / f"shoal-timing-{user}.lock"


def make_lock_file() -> Path:
    """Returns the lock file, made if it is not there, for processes that may open it but make none in its folder.

    One that cannot be made is their error to tell, once they measure.
    """
    path = lock_file()
    with suppress(OSError):
        os.close(_open(path))
    return path


def _open(path: Path) -> int:
    # Never follows a link that somebody else may have put into the shared folder.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


@contextmanager
def wait_for_turn(cancel: threading.Event | None = None) -> Iterator[None]:
    """Waits until no other process on this machine measures, and keeps the others waiting until the block ends.

    The system takes the lock back when its holder dies, so nobody waits for a dead process.

    Args:
        cancel: Set it from another thread to stop waiting.

    Raises:
        MeasureCancelledError: If `cancel` was set.
        MeasureError: If the lock file cannot be opened.
    """
    try:
        import fcntl
    except ImportError:
        # No such locks on this system: measurements may overlap, and their warnings will say that it was busy.
        yield
        return
    path = lock_file()
    try:
        handle = _open(path)
    except OSError as exc:
        msg = f"cannot open the timing lock '{path}': {exc.strerror}"
        raise MeasureError(msg) from exc
    try:
        pause, began = cancel or threading.Event(), time.monotonic()
        while not _is_locked(fcntl.flock, handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
            if pause.wait(_POLL_SECONDS):
                msg = "the measurement was cancelled while it waited for another one on this machine"
                raise MeasureCancelledError(msg)
        _waits.append(time.monotonic() - began)
        yield
    finally:
        os.close(handle)


def _is_locked(lock: Callable[[int, int], None], handle: int, how: int) -> bool:
    try:
        lock(handle, how)
    except BlockingIOError:
        return False
    return True
