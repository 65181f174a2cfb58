# ruff: noqa: T201 (stdout is the line to the server)
"""Says that it plans, waits until a file is there, and finishes; with `early`, its files are there before."""

import json
import sys
import time
from pathlib import Path

from service.worker.main import die_with_parent
from service.worker.messages import WorkOrder

sys.path.insert(0, str(Path(__file__).parent))
from reports import write_result

die_with_parent()
order = WorkOrder.model_validate_json(sys.stdin.readline())
if "early" in sys.argv:
    write_result(order.out, order.job)
print(json.dumps({"type": "progress", "phase": "plan", "fraction": 0.5}), flush=True)
while not Path(sys.argv[1]).exists():
    time.sleep(0.02)
if "early" not in sys.argv:
    write_result(order.out, order.job)
print(json.dumps({"type": "result", "file": "out/report.json"}), flush=True)
