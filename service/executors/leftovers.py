"""Processes of workers whose supervision died before them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from service.worker.environment import TOKEN_VARIABLE


def kill_leftovers(ours: Callable[[Path], bool]) -> None:
    """Kills every process of a worker whose job's folder is one of ours.

    Workers die with whoever started them, but their own children may not.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            folder = process.environ().get(TOKEN_VARIABLE, "")
            if folder and ours(Path(folder)):
                process.send_signal(signal.SIGKILL)
