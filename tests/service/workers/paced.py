# ruff: noqa: T201 (stdout is the line to the server)
"""Trains, as far as its reports say, until a file appears; then finishes with a report page that it was given.

Arguments: the file to wait for, the page, and what it says while it works.
"""

import json
import sys
import time
from pathlib import Path

from service.worker.messages import WorkOrder

sys.path.insert(0, str(Path(__file__).parent))
from reports import write_result

go, page, message = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
order = WorkOrder.model_validate_json(sys.stdin.readline())


def report(phase: str, fraction: float, text: str, **metrics: float) -> None:
    event = {"type": "progress", "phase": phase, "fraction": fraction, "message": text, "metrics": metrics}
    print(json.dumps(event), flush=True)


report("load", 0.0, "reading net.pt2")
report("analyze", 0.03, "looking for what can go")
report("baseline", 0.05, "timing the original", baseline_ms=4.13)
report("plan", 0.2, "12 segments, 31 candidates", baseline_ms=4.13, budget_ms=2.06, floor_ms=1.2)
step = 0
while not go.exists():
    step += 1
    numbers = {"baseline_ms": 4.13, "budget_ms": 2.06, "floor_ms": 1.2, "candidate_ms": 1.93}
    training = {
        "loss": 2.0 / step**0.5 + 0.02 * (step % 3),
        "holdout_accuracy": 0.92 - 0.3 / (step + 1),
        "seconds_left": 95.0,
    }
    report("tune", min(0.45 + step / 200, 0.85), f"{message}, step {step}", **numbers, **training)
    time.sleep(0.1)
write_result(order.out, order.job, html=page.read_text())
print(json.dumps({"type": "result", "file": "out/report.json"}), flush=True)
