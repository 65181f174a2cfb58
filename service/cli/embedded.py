"""A server of this user on this machine, started when a command needs one and gone when nobody needs it any more.

Every command that uses it holds a shared lock on `users.lock` in the state folder. The kernel drops that lock however
the command ends. The server waits for the exclusive lock; once it has it and no job is unfinished, it stops. So a job
goes on when its command leaves it, and a second command finds the first one's server.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import service
from service.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0
_IDLE_POLL_SECONDS: Final = 2.0
_NEEDED: Final = ("sqlalchemy", "torch", "onnxruntime", "fsspec")


def default_state_folder() -> Path:
    """Returns where a server of this user keeps its state unless told otherwise."""
    from platformdirs import user_data_path

    return Path(user_data_path("shoal"))


@contextmanager
def running(state: Path, say: Callable[[str], None]) -> Iterator[str]:
    """Yields the address of the server on `state`, starting one if there is none.

    Args:
        state: Its state folder; made if it does not exist.
        say: Told what takes a moment.

    Raises:
        CommandError: This installation cannot run a server, or the server did not start.
    """
    _check_installed()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _lock_file(state / "users.lock") as users:
        if not _try_lock(users, fcntl.LOCK_SH):
            say("waiting for the last server on this machine to stop")
            fcntl.flock(users, fcntl.LOCK_SH)
        child, address = _find_or_start(state, say)
        try:
            yield address
        finally:
            last = child is not None and _try_lock(users, fcntl.LOCK_EX) and not _has_unfinished_jobs(state, address)
            fcntl.flock(users, fcntl.LOCK_UN)
            if child is not None and last:
                _await_stop(child)


def _find_or_start(state: Path, say: Callable[[str], None]) -> tuple[subprocess.Popen[bytes] | None, str]:
    with _lock_file(state / "start.lock") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        address = _address_of_running(state)
        if address is not None:
            return None, address
        say("starting a server on this machine")
        return _start(state)


def stop_when_unused(state: Path, address: str) -> None:
    """Blocks until no command uses the server at `address` and no job of it is unfinished.

    The lock on the users is kept until the process ends, so that a command that comes now waits and then starts anew.
    """
    users = os.open(state / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        fcntl.flock(users, fcntl.LOCK_EX)
        if not _has_unfinished_jobs(state, address):
            return
        fcntl.flock(users, fcntl.LOCK_UN)
        time.sleep(_IDLE_POLL_SECONDS)


def stop_when_unused_in_background(state: Path, address: str) -> None:
    """Sends this process SIGTERM, as an operator would, once `stop_when_unused` returns."""

    def wait() -> None:
        stop_when_unused(state, address)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stop when unused", daemon=True).start()


def announce(state: Path, address: str) -> None:
    """Makes the server at `address` known to the commands to come, for as long as this process lives."""
    temporary = state / f".server.address.{os.getpid()}"
    temporary.write_text(address)
    temporary.replace(state / "server.address")
    fcntl.flock(os.open(state / "server.lock", os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)  # until the process ends


def _check_installed() -> None:
    from importlib.util import find_spec

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise CommandError(
            f"no --server was given, and none can run here: {', '.join(missing)} missing; "
            "install shoal[server], or give --server HOST:PORT"
        )


def _address_of_running(state: Path) -> str | None:
    with _lock_file(state / "server.lock") as alive:
        if _try_lock(alive, fcntl.LOCK_EX):
            return None
    return (state / "server.address").read_text()


def _start(state: Path) -> tuple[subprocess.Popen[bytes], str]:
    # -P: a folder called `service` in the user's working directory must not be taken for ours.
    command = [sys.executable, "-P", "-m", "service.cli", "serve", "--embedded", "--address", "127.0.0.1:0"]
    path = os.pathsep.join(filter(None, [str(Path(service.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    log_path = state / "server.log"
    reading, writing = os.pipe()
    with log_path.open("ab") as log, os.fdopen(reading, "r") as answers:
        # A session of its own: Ctrl-C in the terminal is for the command, not for the server.
        child = subprocess.Popen(  # noqa: S603 - our own module, started with our own interpreter
            [*command, "--state-dir", str(state), "--address-fd", str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            start_new_session=True,
            env={**_environment(), "PYTHONPATH": path},
        )
        os.close(writing)
        address = _first_line(answers, child)
    if address:
        return child, address
    child.kill()
    raise CommandError(f"the server on this machine did not start: {_last_line(log_path)} (see {log_path})")


def _environment() -> dict[str, str]:
    """Returns what the server shall know of this command's environment: not who the user is elsewhere."""
    dropped = ("SHOAL_TOKEN", "SHOAL_TLS", "SHOAL_SERVE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(dropped)}


def _first_line(answers: IO[str], child: subprocess.Popen[bytes]) -> str:
    import select

    ready, _, _ = select.select([answers], [], [], _START_SECONDS)
    line = answers.readline().strip() if ready else ""
    if not line and not ready:
        child.kill()
    return line


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("shoal: error: ") if lines else "it said nothing"


def _await_stop(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return  # an unfinished job keeps it alive


def operator_token(state: Path) -> str | None:
    """Returns the token that the running server keeps in its state folder; None where this user may not read it."""
    from service.access.principal import OPERATOR_FILE

    try:
        return (state / OPERATOR_FILE).read_text().strip() or None
    except OSError:
        return None


def _has_unfinished_jobs(state: Path, address: str) -> bool:
    from service.client import Client, ShoalError, is_finished

    try:
        with Client(address, token=operator_token(state)) as client:
            return any(not is_finished(job) for job in client.list())
    except ShoalError:
        return False  # it is stopping already


def _lock_file(path: Path) -> IO[bytes]:
    return path.open("ab")


def _try_lock(file: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
