# ruff: noqa: T201 (stdout is the line to the server)
"""Keeps something and is killed, so many times; then finishes, or with `stuck` is killed without keeping anything.

Each attempt takes five seconds, as far as its journal says, and reports how long it may take.
"""

import json
import os
import signal
import sys
from pathlib import Path

from service.resuming.journal import Journal
from service.worker.messages import WorkOrder

sys.path.insert(0, str(Path(__file__).parent))
from reports import write_result

deaths, stuck = int(sys.argv[1]), "stuck" in sys.argv
order = WorkOrder.model_validate_json(sys.stdin.readline())
journal = Journal(order.folder, "keeper")
report = {"type": "progress", "phase": "plan", "fraction": 0.5, "metrics": {"limit": order.deadline_seconds}}
print(json.dumps(report), flush=True)
journal.clock({"plan": journal.before.spent + 5})
attempt = len(journal.before.values)
if attempt < deaths:
    journal.keep(f"attempt {attempt}", 1)
if attempt < deaths or stuck:
    os.kill(os.getpid(), signal.SIGKILL)
write_result(order.out, order.job)
print(json.dumps({"type": "result", "file": "out/report.json"}), flush=True)
