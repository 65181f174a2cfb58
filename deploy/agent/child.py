"""Does one piece of work in a process of its own: what crashes, hangs or eats all memory takes no agent with it.

That process (`deploy.agent.piece`) is confined, knows little of the agent's environment, and ends with its parent.
"""

from __future__ import annotations

import json
import os
import signal
import site
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from deploy.bench.work import FAILURES, Question
from deploy.errors import MeasureCancelledError, MeasureError
from deploy.measure.turn import LOCK_VARIABLE, lock_file
from deploy.sandbox import Mode

_COMMAND: Final = (sys.executable, "-P", "-m", "deploy.agent.piece")
_ROOT: Final = Path(__file__).resolve().parents[2]
_POLL_SECONDS: Final = 0.1
_BLOCK: Final = 1 << 16
_MOST_SAID: Final = 1 << 20
"""Characters of a stream that are kept, its last: what the work says may be anything, and the device is small."""

# What the work may know of the agent's environment: not its token, nor anything else that is not listed.
_PASSED: Final = (
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "PATH",
    "TZ",
    "VIRTUAL_ENV",
)


def _nobody(_seconds: float) -> None:
    """Is told nothing."""


def do_in_child(
    question: Question,
    folder: Path,
    cancel: threading.Event,
    sandbox: Mode = "auto",
    waited: Callable[[float], None] = _nobody,
) -> list[Path]:
    """Returns the files of the answer, the result first.

    Args:
        question: What is asked.
        folder: An empty folder for what is made.
        cancel: Set it from another thread to stop; everything that was started is killed.
        sandbox: How serious it is that the process confines itself.
        waited: Told how many seconds of it went by while others measured on this machine.

    Raises:
        MeasureCancelledError: If `cancel` was set.
        DeployError: What went wrong; also a `MeasureError` where the work named a file that is not its own.
    """
    request = {
        "kind": question.kind,
        "request": dict(question.request),
        "files": [str(path) for path in question.files],
        "folder": str(folder),
        "sandbox": sandbox,
    }
    process = _start(folder)
    try:
        said, errors = _talk(process, json.dumps(request), cancel)
    finally:
        # The group: a timing process of the child's own too.
        _kill(process)
    answer = _decode(process.returncode, said, errors)
    match answer:
        case {"waited": float(seconds)} if seconds > 0:
            waited(seconds)
    return _read(answer, folder)


def _start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own module, our own interpreter
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=folder,
        env=_environment(folder),
        start_new_session=True,
    )


def _environment(folder: Path) -> dict[str, str]:
    """Returns the work's environment: home and temporary files in its folder, engines where they always are."""
    return {name: os.environ[name] for name in _PASSED if name in os.environ} | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONUSERBASE": site.getuserbase() or "",
        LOCK_VARIABLE: str(lock_file()),
    }


def _talk(process: subprocess.Popen[str], request: str, cancel: threading.Event) -> tuple[str, str]:
    """Hands the request over and returns what came on both streams; standard input stays open until then."""
    assert process.stdin is not None
    found: dict[str, str] = {}

    def read(name: str) -> None:
        stream = getattr(process, name)
        with stream:
            found[name] = _last_of(stream)

    readers = [threading.Thread(target=read, args=(name,), daemon=True) for name in ("stdout", "stderr")]
    for reader in readers:
        reader.start()
    try:
        process.stdin.write(request + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it died at once; its exit status says more
    while process.poll() is None:
        if cancel.wait(_POLL_SECONDS):
            _kill(process)
            msg = "the work was cancelled"
            raise MeasureCancelledError(msg)
    for reader in readers:
        reader.join(timeout=5.0)
    return found.get("stdout", ""), found.get("stderr", "")


def _last_of(stream: IO[str]) -> str:
    """Returns the end of a stream, read to the end."""
    kept = ""
    while block := stream.read(_BLOCK):
        kept = (kept + block)[-_MOST_SAID:]
    return kept


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _decode(status: int, said: str, errors: str) -> Any:
    if status < 0 and not said:
        hint = ": the device ran out of memory, or somebody killed it" if -status == signal.SIGKILL else ""
        msg = f"the work died from signal {signal.Signals(-status).name}{hint}"
        raise MeasureError(msg)
    try:
        return json.loads(said)
    except (ValueError, RecursionError) as exc:
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        msg = f"the work ended with status {status} and no answer: {last}"
        raise MeasureError(msg) from exc


def _read(answer: Any, folder: Path) -> list[Path]:
    """Returns the files that an answer names. Nothing in it is believed: what wrote it opened what others wrote."""
    match answer:
        case {"error": {"kind": str(kind), "message": str(message)}}:
            raise FAILURES.get(kind, MeasureError)(message)
        case {"files": [_, *_] as names} if all(isinstance(name, str) for name in names):
            return [_inside(folder, name) for name in names]
    msg = "the work's answer names neither files nor an error, and one of them was wanted; it is not handed in"
    raise MeasureError(msg)


def _inside(folder: Path, name: str) -> Path:
    """Returns a plain file in the work's folder: this process, which nothing confines, moves and sends nothing else."""
    path = Path(name)
    if not path.is_relative_to(folder) or ".." in path.parts or not _is_plain(path, folder):
        msg = "the work named a file that is no plain file in its own folder; nothing of its answer is handed in"
        raise MeasureError(msg)
    return path


def _is_plain(path: Path, folder: Path) -> bool:
    """Returns whether a path leads to a file with one name, over folders only, no links, from `folder` on."""
    ways = [parent for parent in path.parents if parent != folder and parent.is_relative_to(folder)]
    try:
        found = path.lstat()
        over_folders = all(stat.S_ISDIR(way.lstat().st_mode) for way in ways)
    except (OSError, ValueError):
        return False
    return over_folders and stat.S_ISREG(found.st_mode) and found.st_nlink == 1
