"""Behaves as the job's seed says, so that one server serves many tests; see `Told` in `server_process.py`."""

import io
import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

from service.worker.main import die_with_parent
from service.worker.messages import WorkOrder

WORKERS = Path(__file__).parents[2] / "workers"
PHASES = ("load", "analyze", "baseline", "plan", "tune", "export", "measure", "report")
STEPS = 24
SCRIPTS: dict[int, tuple[str, ...]] = {
    0: ("finish",),
    2: ("sleep",),
    3: ("stubborn",),
    4: ("error", "UNSAFE_MODEL", "caller"),
    5: ("error", "DISK_FULL", "machine"),
    6: ("error", "SURGERY", "shoal"),
    9: ("die", "9"),
}


def say(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def take_steps(order: WorkOrder, pause: float) -> None:
    from reports import write_result

    for step in range(STEPS):
        event = {
            "type": "progress",
            "phase": PHASES[step * len(PHASES) // STEPS],
            "fraction": step / STEPS,
            "message": f"step {step + 1} of {STEPS}",
            "metrics": {"baseline_ms": 4.0, "loss": 1 / (step + 1)},
        }
        say(event)
        time.sleep(pause)
    write_result(order.out, order.job)
    say({"type": "result", "file": "out/report.json"})


die_with_parent()
line = sys.stdin.readline()
order = WorkOrder.model_validate_json(line)
sys.path.insert(0, str(WORKERS))
if order.spec.seed in {1, 7}:
    take_steps(order, 0.05 if order.spec.seed == 1 else 0.12)
else:
    name, *arguments = SCRIPTS[order.spec.seed]
    sys.stdin, sys.argv = io.StringIO(line), [name, *arguments]
    runpy.run_path(str(WORKERS / f"{name}.py"), run_name="__main__")
