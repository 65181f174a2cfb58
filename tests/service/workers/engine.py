# ruff: noqa: T201 (stdout is the line to the server)
"""Ends a job as the pipeline does, with what the runtime made of the model on the job's device.

OpenVINO's compiled model, which is not delivered, is fetched and run here.
"""

import json
import sys
from pathlib import Path

from service.delivery.engines import deliver_engine
from service.pipeline.benches import bench_of
from service.pipeline.phases import Phases
from service.worker.main import Channel, watch
from service.worker.messages import DeviceEvent, WorkOrder

sys.path.insert(0, str(Path(__file__).parent))
from reports import make_manifest, make_report, write_result
from tiny import write_model

order = WorkOrder.model_validate_json(sys.stdin.readline())
watch(order, Channel(sys.stdout.buffer))


def announce(key: str) -> None:
    print(DeviceEvent(key=key).model_dump_json(), flush=True)


def progress(phase: str, fraction: float, message: str, metrics: dict) -> None:
    event = {"type": "progress", "phase": phase, "fraction": fraction, "message": message, "metrics": dict(metrics)}
    print(json.dumps(event), flush=True)


def imported(engine: Path) -> float:
    """Returns what OpenVINO computes with a compiled model: 1 + 2 more than its input, in sum."""
    import numpy as np
    import openvino

    compiled = openvino.Core().import_model(engine.read_bytes(), "CPU")
    (found,) = compiled.create_infer_request().infer({0: np.zeros((1, 2), np.float32)}).values()
    return float(found.sum())


phases = Phases(progress, order.deadline_seconds)
bench = bench_of(order, announce, phases)
phases(0.0, "begun")
write_result(order.out, order.job)
if order.spec.target.runtime == "openvino":
    engine = bench.engine(write_model(order.folder / "tiny.onnx"), order.folder)
    phases(1.0, "done", {"sum": -1.0 if engine is None else imported(engine)})
else:
    (order.out / "manifest.json").unlink()
    engines = deliver_engine(order.out / "model.onnx", bench)
    stated = {"engines": engines.entries, "engine_missing": engines.missing}
    manifest = make_manifest(order.out, make_report(order.job)).model_copy(update=stated)
    (order.out / "manifest.json").write_text(manifest.model_dump_json())
    phases(1.0, "done", {"elapsed": phases.elapsed})
print(json.dumps({"type": "result", "file": "out/report.json"}), flush=True)
