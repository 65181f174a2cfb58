# ruff: noqa: T201 (stdout is the line to the server)
"""Keeps something after five seconds, as its journal says, then stays for ever, or finishes where that was kept before.

It reports its process, how much it found kept, and how long it may take. With a number, it finishes after so many
seconds in any case.
"""

import json
import os
import sys
import time
from pathlib import Path

from service.resuming.journal import FITS, Journal
from service.worker.messages import WorkOrder

sys.path.insert(0, str(Path(__file__).parent))
from reports import write_result

order = WorkOrder.model_validate_json(sys.stdin.readline())
fit = order.folder / FITS / "some" / "training.pt"
weights = fit.read_text() if fit.exists() else ""
journal = Journal(order.folder, "roams")
found = len(journal.before.values)
journal.clock({"plan": journal.before.spent + 5})
journal.keep(f"attempt {found}", 1)
fit.parent.mkdir(parents=True, exist_ok=True)
fit.write_text(weights + "fitted")
facts = {"pid": os.getpid(), "found": found, "limit": order.deadline_seconds, "weights": len(weights)}
print(json.dumps({"type": "progress", "phase": "plan", "fraction": 0.2, "metrics": facts}), flush=True)
print(json.dumps({"type": "progress", "phase": "tune", "fraction": 0.5, "metrics": facts}), flush=True)
if len(sys.argv) > 1 or not found:
    time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 600)
write_result(order.out, order.job)
print(json.dumps({"type": "result", "file": "out/report.json"}), flush=True)
