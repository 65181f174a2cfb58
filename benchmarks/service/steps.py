"""A worker that keeps some steps in its journal, one each tenth of a second, and then hands in a small result.

What it hands in is complete, so the server does with it all that it does with a real one. The job's seed is the number
of steps.
"""

import json
import sys
import time

from service.resuming.journal import Journal
from service.worker.main import die_with_parent
from service.worker.messages import WorkOrder
from tests.service.workers.reports import write_result

die_with_parent()
order = WorkOrder.model_validate_json(sys.stdin.readline())
journal = Journal(order.folder, "steps")
steps = order.spec.seed
for step in range(steps):
    if journal.recall(f"step {step}") is None:
        time.sleep(0.1)
        journal.keep(f"step {step}", step)
    event = {"type": "progress", "phase": "steps", "fraction": (step + 1) / (steps + 1), "metrics": {"step": step}}
    print(json.dumps(event), flush=True)
write_result(order.out, order.job)
print(json.dumps({"type": "result", "file": "out/report.json"}), flush=True)
