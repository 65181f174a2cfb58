"""A real server as a process of its own, on a port that it keeps when it is started again."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

PROGRAM = (
    "import sys\n"
    "from service.server import serve\n"
    "from service.settings import ServerSettings\n"
    "serve(ServerSettings.model_validate_json(sys.argv[1]), lambda address: print(address, flush=True))\n"
)
TOLD_WORKER = Path(__file__).parent / "cli/workers/told.py"


class Told(IntEnum):
    """What the worker does; to be given as the job's seed."""

    FINISH = 0
    STEPS = 1
    SLEEP = 2
    STUBBORN = 3
    CALLER_ERROR = 4
    MACHINE_ERROR = 5
    OUR_ERROR = 6
    LONG_STEPS = 7
    DIE = 9


class ServerProcess:
    """Use it as a context manager.

    Args:
        state: Its state folder.
        **settings: Other settings of the server.
    """

    def __init__(self, state: Path, **settings: Any) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.settings = {
            "address": self.address,
            "state_dir": str(state),
            "worker_command": [sys.executable, "-P", str(TOLD_WORKER)],
            "workers": 4,
            "heartbeat_seconds": 0.2,
            "progress_interval": 0.01,
            "cancel_grace": 4.0,
            "stop_grace": 0.2,
            "min_free_bytes": 0,
            **settings,
        }
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    def start(self) -> None:
        """Starts the process and waits until it answers calls."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps(self.settings)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == self.address

    def end(self, number: signal.Signals) -> None:
        """Sends a signal and waits for the end of the process."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


def free_port() -> int:
    """A port that no outgoing connection will be given while the server is away."""
    while True:
        port = random.randint(15_000, 30_000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
