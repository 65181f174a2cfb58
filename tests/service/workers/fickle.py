# ruff: noqa: T201 (stdout is the line to the server)
"""Keeps something and is killed in every attempt but the second, which works until it is stopped."""

import json
import os
import signal
import sys
import time

from service.resuming.journal import Journal
from service.worker.messages import WorkOrder

order = WorkOrder.model_validate_json(sys.stdin.readline())
journal = Journal(order.folder, "fickle")
attempt = len(journal.before.values) + 1
journal.keep(f"attempt {attempt}", 1)
print(json.dumps({"type": "progress", "phase": "tune", "fraction": 0.5, "metrics": {"attempt": attempt}}), flush=True)
while attempt == 2:
    time.sleep(0.1)
os.kill(os.getpid(), signal.SIGKILL)
