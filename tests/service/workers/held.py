# ruff: noqa: T201 (stdout is the line to the server)
"""Reads its files (at the end, with `late`), works until another one appears that its argument names, then delivers."""

import json
import sys
import time
from pathlib import Path

from service.worker.messages import WorkOrder

sys.path.insert(0, str(Path(__file__).parent))
from reports import write_result

order = WorkOrder.model_validate_json(sys.stdin.readline())
late = "late" in sys.argv
contents = [] if late else [path.read_bytes() for path in order.files.values()]
print(json.dumps({"type": "progress", "phase": "tune", "fraction": 0.5}), flush=True)
while not Path(sys.argv[1]).exists():
    time.sleep(0.02)
contents += [path.read_bytes() for path in order.files.values()] if late else []
assert all(contents)
write_result(order.out, order.job)
print(json.dumps({"type": "result", "file": "out/report.json"}), flush=True)
