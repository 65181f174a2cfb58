# ruff: noqa: T201 (stdout is the line to the server)
"""Reports, and after so many seconds does its job."""

import json
import os
import sys
import time
from pathlib import Path

from service.worker.messages import WorkOrder

sys.path.insert(0, str(Path(__file__).parent))
from reports import write_result

order = WorkOrder.model_validate_json(sys.stdin.readline())
report = {"type": "progress", "phase": "tune", "fraction": 0.25, "metrics": {"worker": os.getpid()}}
print(json.dumps(report), flush=True)
time.sleep(float(sys.argv[1]))
print(json.dumps({**report, "phase": "report"}), flush=True)
write_result(order.out, order.job)
print(json.dumps({"type": "result", "file": "out/report.json"}), flush=True)
