# ruff: noqa: T201 (stdout is the line to the server)
"""Does a job in no time: some progress, real files, a true report. With `forged` the report lies about a hash."""

import json
import sys
from pathlib import Path

from service.worker.messages import WorkOrder

sys.path.insert(0, str(Path(__file__).parent))
from reports import write_result

order = WorkOrder.model_validate_json(sys.stdin.readline())
for path in order.files.values():
    assert path.read_bytes(), path
for step, phase in enumerate(("load", "plan", "report")):
    print(json.dumps({"type": "progress", "phase": phase, "fraction": step / 3, "metrics": {"loss": step}}), flush=True)
if order.task == "analyze":
    analysis = {
        "parameters": 5,
        "sites": [{"node": "relu", "kind": "relu", "module": "act", "shape": [4, 8, 8]}],
        "segments": [
            {"name": "layer1", "entry": "x", "exit": "add", "candidates": ["remove"], "sites": ["relu"], "operators": 2}
        ],
        "refusals": [{"where": "head", "code": "last", "reason": "The head stays."}],
        "floor": None if order.skip_floor else {"baseline_ms": 2.0, "floor_ms": 0.5, "elapsed_seconds": 1.5},
    }
    (order.out / "analysis.json").write_text(json.dumps(analysis))
    print(json.dumps({"type": "result", "file": "out/analysis.json"}), flush=True)
else:
    write_result(order.out, order.job, forged="forged" in sys.argv)
    print(json.dumps({"type": "result", "file": "out/report.json"}), flush=True)
