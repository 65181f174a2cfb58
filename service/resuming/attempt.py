"""Who writes a job's journal, and what a job that goes on says of it."""

from __future__ import annotations

import hashlib
import json

from deploy.machine import describe_device
from service.pipeline.phases import SHARES
from service.programs import version_of
from service.resuming.journal import Kept
from service.worker.messages import WorkOrder

_PROGRAMS = ("shoal", "torch", "numpy", "onnx", "onnxruntime", "onnxscript", "onnxsim")


def writer_of(order: WorkOrder) -> str:
    """Returns a key of what a job's measurements and judgements depend on: its spec, the programs, the machine."""
    programs = {name: version_of(name) for name in _PROGRAMS}
    device = describe_device(order.spec.target.local_device)
    parts = (order.spec.model_dump(mode="json"), programs, device.fingerprint)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def opening(before: Kept) -> str:
    """Returns what a job says first: whether it goes on from an earlier attempt."""
    loading = "Loading and checking the model"
    if not before.seconds:
        return loading
    reached = [phase for phase in SHARES if phase in before.seconds][-1:] or ["unknown"]
    return f"Going on from the phase {reached[0]}, after {before.spent:.0f} s: {loading.lower()}"
