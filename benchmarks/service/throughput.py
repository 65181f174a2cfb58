"""`python -m benchmarks.service.throughput --jobs 40 --workers 1 2 4`: jobs per hour, and what the service costs.

By default a job's work is to sleep for half a second in steps (`benchmarks.service.steps`), so what is beyond that is
the service: the queue, a process for the worker and its imports, events, taking over six files. With `--model FILE`,
jobs are real ones on that model (`--budget`, no data). Every number of workers gets a server of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.service.served import STEPS_WORKER, Served
from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.client import Client

_STEPS = 5
_STEP_SECONDS = 0.1


def _spec(artifact: str, asked: argparse.Namespace) -> job_pb.OptimizationJobSpec:
    kind = "onnx_artifact" if asked.model is not None and asked.model.suffix == ".onnx" else "pt2_artifact"
    return job_pb.OptimizationJobSpec(
        model=job_pb.ModelSource(**{kind: artifact}),
        budget=job_pb.Budget(fraction=asked.budget),
        seed=_STEPS if asked.model is None else 0,
    )


def _measure(asked: argparse.Namespace, workers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="shoal-throughput-") as name:
        folder = Path(name)
        stand_in = folder / "net.pt2"
        stand_in.write_bytes(b"a model")
        settings: dict[str, Any] = {"workers": workers}
        if asked.model is None:
            settings["worker_command"] = STEPS_WORKER
        with Served(folder / "state", **settings) as served, Client(served.address) as client:
            artifact = client.upload(asked.model or stand_in, pb.ARTIFACT_KIND_MODEL)
            spec = _spec(artifact.name, asked)
            list(client.watch(client.create(spec).name))  # the first finds caches cold
            began, created = time.monotonic(), []
            names = []
            for _ in range(asked.jobs):
                start = time.perf_counter()
                names.append(client.create(spec).name)
                created.append(time.perf_counter() - start)
            for job in names:
                list(client.watch(job))
            seconds = time.monotonic() - began
            states = {job_pb.OptimizationJob.State.Name(client.get(job).state) for job in names}
    found: dict[str, Any] = {
        "workers": workers,
        "jobs": asked.jobs,
        "states": sorted(states),
        "seconds": round(seconds, 2),
        "jobs_per_hour": round(3600 * asked.jobs / seconds),
        "create_p50_ms": round(1e3 * statistics.median(created), 1),
    }
    if asked.model is None:
        found["service_seconds_per_job"] = round(seconds * workers / asked.jobs - _STEPS * _STEP_SECONDS, 3)
    return found


def main() -> int:
    """Measures, and prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--budget", type=float, default=0.7)
    asked = parser.parse_args()
    runs = [_measure(asked, workers) for workers in asked.workers]
    print(json.dumps({"cores": os.cpu_count(), "model": asked.model and asked.model.name, "runs": runs}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
