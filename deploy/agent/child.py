"""Does one piece of work in a process of its own: what crashes, hangs or eats all memory takes no agent with it.

`python -m deploy.agent.child`: one JSON request on stdin, one JSON answer on stdout. It ends when its parent does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from deploy.bench.perform import perform
from deploy.bench.work import FAILURES, Question
from deploy.caller import end_with_caller, private_stdout, read_line
from deploy.errors import DeployError, MeasureCancelledError, MeasureError

_COMMAND: Final = (sys.executable, "-P", "-m", "deploy.agent.child")
_ROOT: Final = Path(__file__).resolve().parents[2]
_POLL_SECONDS: Final = 0.1


def do_in_child(question: Question, folder: Path, cancel: threading.Event) -> list[Path]:
    """Returns the files of the answer, the result first.

    Args:
        question: What is asked.
        folder: An empty folder for what is made.
        cancel: Set it from another thread to stop; everything that was started is killed.

    Raises:
        MeasureCancelledError: If `cancel` was set.
        DeployError: What went wrong.
    """
    request = {
        "kind": question.kind,
        "request": dict(question.request),
        "files": [str(path) for path in question.files],
        "folder": str(folder),
    }
    process = _start(folder)
    try:
        said, errors = _talk(process, json.dumps(request), cancel)
    finally:
        # The group: a timing process of the child's own too.
        _kill(process)
    return _decode(process.returncode, said, errors)


def _start(folder: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(  # noqa: S603 - our own module, our own interpreter
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


def _talk(process: subprocess.Popen[str], request: str, cancel: threading.Event) -> tuple[str, str]:
    """Hands the request over and returns what came on both streams; standard input stays open until then."""
    assert process.stdin is not None
    found: dict[str, str] = {}

    def read(name: str) -> None:
        stream = getattr(process, name)
        with stream:
            found[name] = stream.read()

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


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()


def _decode(status: int, said: str, errors: str) -> list[Path]:
    if status < 0 and not said:
        hint = ": the device ran out of memory, or somebody killed it" if -status == signal.SIGKILL else ""
        msg = f"the work died from signal {signal.Signals(-status).name}{hint}"
        raise MeasureError(msg)
    try:
        answer: Mapping[str, Any] = json.loads(said)
    except ValueError as exc:
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        msg = f"the work ended with status {status} and no answer: {last}"
        raise MeasureError(msg) from exc
    if "error" in answer:
        raise FAILURES.get(answer["error"]["kind"], MeasureError)(answer["error"]["message"])
    return [Path(path) for path in answer["files"]]


def main() -> None:
    """Reads a request, does it, answers."""
    answer = private_stdout()
    request = json.loads(read_line())
    end_with_caller()
    json.dump(_answer(request), answer)
    answer.flush()


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    folder = Path(request["folder"])
    question = Question(request["kind"], request["request"], tuple(Path(path) for path in request["files"]))
    try:
        found = perform(question, folder)
    except DeployError as exc:
        return {"error": {"kind": type(exc).__name__, "message": str(exc)}}
    except MemoryError:
        return {"error": {"kind": "MeasureError", "message": "the device ran out of memory"}}
    except Exception as exc:  # noqa: BLE001 - the process boundary: whatever it is, the server must be told
        return {"error": {"kind": "MeasureError", "message": f"the work failed: {type(exc).__name__}: {exc}"}}
    result = folder / "result.json"
    result.write_text(json.dumps(found.result))
    return {"files": [str(result), *map(str, found.files)]}


if __name__ == "__main__":
    main()
