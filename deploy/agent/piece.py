"""The program of the process that does one piece of an agent's work: one request on stdin, one answer on stdout.

It confines itself before it opens anything: what it opens came from the server, and from the server's callers before.
Nothing that starts threads may be imported until then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.caller import end_with_caller, private_stdout, read_line
from deploy.engines.place import engine_folder
from deploy.errors import DeployError
from deploy.measure.turn import make_lock_file, seconds_waited
from deploy.sandbox import Policy, confine


def main() -> None:
    """Reads a request, does it, answers."""
    answer = private_stdout()
    request = json.loads(read_line())
    json.dump({**_answer(request), "waited": seconds_waited()}, answer)
    answer.flush()


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        _confine(request)
        end_with_caller()
        return _do(request)
    except DeployError as exc:
        return {"error": {"kind": type(exc).__name__, "message": str(exc)}}
    except MemoryError:
        return {"error": {"kind": "MeasureError", "message": "the device ran out of memory"}}
    except Exception as exc:  # noqa: BLE001 - the process boundary: whatever it is, the server must be told
        return {"error": {"kind": "MeasureError", "message": f"the work failed: {type(exc).__name__}: {exc}"}}


def _confine(request: Mapping[str, Any]) -> None:
    """Leaves this process its files, its folder, and what engines are kept in."""
    cache = engine_folder().parent
    os.environ.setdefault("CUDA_CACHE_PATH", str(cache / "cuda"))
    confine(
        Policy(
            mode=request["sandbox"],
            reads=tuple(Path(path) for path in request["files"]),
            writes=(Path(request["folder"]), cache),
            locks=(make_lock_file(),),
        )
    )


def _do(request: Mapping[str, Any]) -> dict[str, Any]:
    from deploy.bench.perform import perform
    from deploy.bench.work import Question

    folder = Path(request["folder"])
    question = Question(request["kind"], request["request"], tuple(Path(path) for path in request["files"]))
    found = perform(question, folder)
    result = folder / "result.json"
    result.write_text(json.dumps(found.result))
    return {"files": [str(result), *map(str, found.files)]}


if __name__ == "__main__":
    main()
