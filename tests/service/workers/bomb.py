"""Confines itself, then takes without end: `memory`, `forks` or `file`. Children take it, where there are any."""

import os
import sys
import time

from service.worker.confinement import confine_worker
from service.worker.main import gather_orphans
from service.worker.messages import WorkOrder

gather_orphans()
order = WorkOrder.model_validate_json(sys.stdin.readline())
confine_worker(order)
kind = sys.argv[1]
if kind == "memory" and os.fork() == 0:
    taken = []
    while True:
        taken.append(b"x" * (8 << 20))
        time.sleep(0.01)
if kind == "forks":
    # Each leaves its parent at once: an orphan is found all the same.
    for _ in range(60):
        if os.fork() == 0:
            if os.fork():
                os._exit(0)
            break
if kind == "file":
    with (order.folder / "tmp" / "big").open("wb") as out:
        while True:
            out.write(b"x" * (1 << 20))
time.sleep(60)
