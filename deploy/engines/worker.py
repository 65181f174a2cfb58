"""The fresh process that builds: `python -m deploy.engines.worker FOLDER`, where `request` lies and `answer` goes.

It ends by itself when its caller dies: a thread waits for the end of standard input.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

from deploy.caller import end_with_caller
from deploy.engines.settings import Batches, BuildSettings
from deploy.errors import DeployError, EngineOperatorError


def main() -> None:
    """Reads a request, builds, answers."""
    folder = Path(sys.argv[1])
    end_with_caller()
    request = json.loads((folder / "request").read_text(encoding="utf-8"))
    answer = _answer(request)
    temporary = folder / "answer.part"
    temporary.write_text(json.dumps(answer), encoding="utf-8")
    temporary.replace(folder / "answer")


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from deploy.engines.builder import build_engine

    try:
        return {
            "metadata": build_engine(Path(request["onnx"]), Path(request["engine"]), _settings(request["settings"]))
        }
    except EngineOperatorError as exc:
        return {"error": {**_told(exc), "operator": exc.operator, "node": exc.node}}
    except DeployError as exc:
        return {"error": _told(exc)}
    except Exception as exc:  # noqa: BLE001  the process boundary: whatever it is, the caller must be told
        traceback.print_exc()
        message = f"the engine builder failed: {type(exc).__name__}: {exc}"
        return {"error": {"kind": "EngineBuildError", "message": message}}


def _settings(values: dict[str, Any]) -> BuildSettings:
    cache = values["timing_cache"]
    typed = {"batches": Batches(**values["batches"]), "timing_cache": None if cache is None else Path(cache)}
    return BuildSettings(**{**values, **typed})


def _told(error: DeployError) -> dict[str, str]:
    return {"kind": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    main()
