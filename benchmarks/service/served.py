"""A server in a process of its own, for benchmarks: it can be killed and started again, on the same port."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, final

import psutil

from service.worker.environment import TOKEN_VARIABLE

_PROGRAM = (
    "import sys\n"
    "from service.server import serve\n"
    "from service.settings import ServerSettings\n"
    "serve(ServerSettings.model_validate_json(sys.argv[1]), lambda address: print(address, flush=True))\n"
)
STEPS_WORKER = (sys.executable, "-P", str(Path(__file__).with_name("steps.py")))
"""A worker that does next to nothing, in steps."""


@final
class Served:
    """Use it as a context manager; leaving it stops the server.

    Args:
        state: Its state folder; made if it is missing.
        **settings: Other settings.
    """

    def __init__(self, state: Path, **settings: Any) -> None:
        self.state = state
        self.address = f"127.0.0.1:{_free_port()}"
        self.log = state.parent / "server.log"
        self._settings = {"address": self.address, "state_dir": str(state), "min_free_bytes": 0, **settings}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """Of the server's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def start(self) -> None:
        """Starts the process and waits until it answers calls."""
        self.state.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(self._settings)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != self.address:
            raise SystemExit(f"the server did not start:\n{self.log.read_text()[-2000:]}")

    def end(self, number: signal.Signals) -> None:
        """Sends a signal and waits for the end of the process."""
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def workers(self) -> list[psutil.Process]:
        """Returns the processes of this server's jobs, also those that outlived it."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(TOKEN_VARIABLE, "").startswith(str(self.state) + os.sep):
                    found.append(process)
        return found


def _free_port() -> int:
    """Returns a port below those that the system gives to outgoing connections."""
    for port in range(15_000 + os.getpid() % 10_000, 32_000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise SystemExit("there is no free port")
