# ruff: noqa: T201 (stdout is the line to the server)
"""Asks its device to run a model twice over, as a job would, and ships what came back in the progress's metrics.

The model is `y = x + 1` in the job's folder; how often each question is asked is the job's seed.
"""

import json
import logging
import sys
from pathlib import Path

import numpy as np

from service.pipeline.benches import bench_of
from service.pipeline.phases import Phases
from service.worker.main import Channel, watch
from service.worker.messages import DeviceEvent, WorkOrder

sys.path.insert(0, str(Path(__file__).parent))
from reports import write_result
from tiny import write_model

order = WorkOrder.model_validate_json(sys.stdin.readline())
watch(order, Channel(sys.stdout.buffer))


def announce(key: str) -> None:
    print(DeviceEvent(key=key).model_dump_json(), flush=True)


def progress(phase: str, fraction: float, message: str, metrics: dict) -> None:
    event = {"type": "progress", "phase": phase, "fraction": fraction, "message": message, "metrics": dict(metrics)}
    print(json.dumps(event), flush=True)


phases = Phases(progress, order.deadline_seconds)
phases(0.0, "begun")
bench = bench_of(order, announce, phases)
model = write_model(order.folder / "model.onnx")
count = order.spec.seed or 1
with phases.phase("baseline", "asking"):
    logging.getLogger("asks").info("asking %d times", count)
    for number in range(count):
        feeds = [(np.full((2, 2), number, np.float32),), (np.full((1, 2), 10 + number, np.float32),)]
        outputs = [float(batch[0].mean()) for batch in bench.run(model, feeds, threads=1)]
        found = {f"first_{number}": outputs[0], f"second_{number}": outputs[1]}
        phases((number + 1) / (order.spec.seed or 1), "ran", found)
phases(1.0, "done", {"elapsed": phases.elapsed})
write_result(order.out, order.job)
print(json.dumps({"type": "result", "file": "out/report.json"}), flush=True)
