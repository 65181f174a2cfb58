"""The real worker, killed at the beginning of phases: `server` with its server, or `alone`; then the phases, in order.

Each phase is fatal once; what it leaves in the cache is the SHA-256 of the network for shipping, where there was one.
"""

import hashlib
import os
import signal
import sys
from collections.abc import Mapping

from service.worker.confinement import confine_worker
from service.worker.main import Channel, die_with_parent
from service.worker.messages import ResultEvent, WorkOrder

how, *phases = sys.argv[1:]
stream = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)
channel = Channel(stream)
die_with_parent()
order = WorkOrder.model_validate_json(sys.stdin.readline())
assert order.server_pid is not None
if how == "alone":
    # Who is confined kills no server.
    confine_worker(order)
from service.pipeline import pipeline  # noqa: E402 (what starts threads comes after)


def progress(phase: str, fraction: float, message: str, metrics: Mapping[str, float]) -> None:
    channel.progress(phase, fraction, message, metrics)
    died_of = order.cache_folder / f"died-of-{phase}"
    if phase in phases and not died_of.exists():
        model = order.out / "model.onnx"
        died_of.write_text(hashlib.sha256(model.read_bytes()).hexdigest() if model.exists() else "")
        os.kill(order.server_pid if how == "server" else os.getpid(), signal.SIGKILL)
        signal.pause()


pipeline.optimize(order, progress, channel.ask_device)
channel.send(ResultEvent(file="out/report.json"))
