"""`python -m benchmarks.service.load --uploads 20 --bytes 1073741824 --watchers 200`: the server under load.

Two servers are measured in one run, each in a process of its own and with the same clients, in processes of their own:

* *raw*: takes the same chunks over the same gRPC library and drops them. That is as fast as it gets on this machine.
* *shoal*: checks each chunk, stores it durably, checks the whole file; and serves watchers of jobs meanwhile, and one
  client that asks for a job again and again.

Prints one JSON object: bytes per second of both, the server's memory before, during and after, times of GetJob.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import grpc
import numpy as np
import psutil

from benchmarks.service.served import STEPS_WORKER, Served
from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerServicer, ModelOptimizerStub
from protos.shoal.v1.model_optimizer_pb2_grpc import add_ModelOptimizerServicer_to_server as add_servicer
from service.client import Client
from service.client.upload import Outgoing, send

_SPAWN = multiprocessing.get_context("spawn")
_BLOCK = 1 << 20
_LONG_JOB = 100_000


@final
class _Drop(ModelOptimizerServicer):
    """Takes uploads and drops them."""

    async def UploadArtifact(self, request_iterator: Any, context: Any) -> pb.Artifact:  # noqa: N802, ARG002
        size = 0
        async for request in request_iterator:
            size += len(request.chunk.data)
        return pb.Artifact(name="artifacts/none", size_bytes=size)

    async def GetUploadStatus(self, request: Any, context: Any) -> pb.UploadStatus:  # noqa: N802, ARG002
        return pb.UploadStatus()


def _serve_raw(pipe: Any) -> None:
    import asyncio

    async def serve() -> None:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 4 << 20)])
        add_servicer(_Drop(), server)
        pipe.send(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        await server.wait_for_termination()

    asyncio.run(serve())


def _make_files(folder: Path, count: int, size: int) -> list[pb.UploadMetadata]:
    """Makes files that differ in their first bytes and are holes otherwise, and returns what announces each.

    What is read and sent is as many bytes as of any file; only this machine's disk is spared.
    """
    zeros, made = bytes(_BLOCK), []
    for number in range(count):
        path = folder / f"{number}.bin"
        head = number.to_bytes(8, "little") * 8
        with path.open("wb") as file:
            file.write(head)
            file.truncate(size)
        digest = hashlib.sha256(head)
        for start in range(len(head), size, _BLOCK):
            digest.update(zeros[: min(_BLOCK, size - start)])
        fields = {"kind": pb.ARTIFACT_KIND_DATA, "filename": path.name, "size_bytes": size}
        made.append(pb.UploadMetadata(upload_id=f"upload-{number:04}", sha256=digest.hexdigest(), **fields))
    return made


def _send(address: str, folder: str, announced: list[bytes]) -> None:
    """Uploads files at the same time, as the client does."""

    def one(raw: bytes) -> None:
        metadata = pb.UploadMetadata.FromString(raw)
        with grpc.insecure_channel(address) as channel:
            outgoing = Outgoing(Path(folder) / metadata.filename, metadata, lambda _done, _total: None)
            send(ModelOptimizerStub(channel), outgoing, address, 60.0)

    with ThreadPoolExecutor(len(announced)) as pool:
        list(pool.map(one, announced))


def _upload_all(address: str, folder: Path, files: list[pb.UploadMetadata], processes: int) -> float:
    """Returns how many bytes a second arrived, all uploads together."""
    start = time.monotonic()
    shares = [[file.SerializeToString() for file in files[number::processes]] for number in range(processes)]
    senders = [_SPAWN.Process(target=_send, args=(address, str(folder), share)) for share in shares]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
        if sender.exitcode:
            raise SystemExit("an upload failed")
    return sum(file.size_bytes for file in files) / (time.monotonic() - start)


@dataclass
class Memory:
    """Bytes of a process's own memory, looked at twice a second."""

    pid: int
    seen: list[int] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def follow(self) -> None:
        """Looks until told to stop."""
        process = psutil.Process(self.pid)
        while not self.stop.wait(0.5):
            self.seen.append(process.memory_info().rss - process.memory_info().shared)

    def part(self, since: int) -> dict[str, float]:
        """Returns median and largest, in MiB, of what was seen since."""
        values = [value / _BLOCK for value in self.seen[since:]]
        return {"median_mib": round(statistics.median(values), 1), "most_mib": round(max(values), 1)}


def _ask(address: str, name: str, signs: tuple[Any, Any], answer: Any) -> None:
    """Asks for a job fifty times a second, and hands in how long each answer took."""
    seconds: list[float] = []
    ready, stop = signs
    with Client(address) as client:
        client.get(name)
        ready.set()
        while not stop.is_set():
            start = time.perf_counter()
            client.get(name)
            seconds.append(time.perf_counter() - start)
            time.sleep(max(0.0, 0.02 - seconds[-1]))
    answer.put(seconds)


def _watch(address: str, names: list[str], count: int, stop: Any, events: Any) -> None:
    """Watches jobs from so many streams, and hands in how many events each saw."""

    def one(number: int) -> int:
        seen = 0
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            request = pb.WatchOptimizationJobRequest(name=names[number % len(names)])
            call = ModelOptimizerStub(channel).WatchOptimizationJob(request)
            for _ in call:
                seen += 1
                if stop.is_set():
                    call.cancel()
                    return seen
        return seen

    with ThreadPoolExecutor(count) as pool:
        events.put(list(pool.map(one, range(count))))


def _times(seconds: list[float]) -> dict[str, float]:
    return {
        "n": len(seconds),
        **{f"p{q}_ms": round(1e3 * float(np.percentile(seconds, q)), 2) for q in (50, 95, 99)},
        "max_ms": round(1e3 * max(seconds), 2),
    }


def _while_asking(address: str, name: str, work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Returns what some work returns, and the times of GetJob meanwhile."""
    ready, stop, answer = _SPAWN.Event(), _SPAWN.Event(), _SPAWN.Queue()
    asking = _SPAWN.Process(target=_ask, args=(address, name, (ready, stop), answer))
    asking.start()
    ready.wait()
    try:
        result = work()
    finally:
        stop.set()
    times = _times(answer.get(timeout=60))
    asking.join()
    return result, times


def _measure(asked: argparse.Namespace, folder: Path, files: list[pb.UploadMetadata]) -> dict[str, Any]:
    served = Served(
        folder / "state",
        worker_command=STEPS_WORKER,
        workers=2,
        principal_calls_per_second=1e6,
        principal_burst=10**6,
        progress_interval=0.1,
    )
    (folder / "net.pt2").write_bytes(b"a model")
    with served, Client(served.address) as client:
        model = client.upload(folder / "net.pt2", pb.ARTIFACT_KIND_MODEL)
        spec = job_pb.OptimizationJobSpec(
            model=job_pb.ModelSource(pt2_artifact=model.name), budget=job_pb.Budget(fraction=0.5), seed=_LONG_JOB
        )
        names = [client.create(spec).name for _ in range(2)]
        memory = Memory(served.pid)
        threading.Thread(target=memory.follow, daemon=True).start()
        _, idle = _while_asking(served.address, names[0], lambda: time.sleep(asked.idle))
        alone = len(memory.seen)
        stop, events = _SPAWN.Event(), _SPAWN.Queue()
        watching = [
            _SPAWN.Process(target=_watch, args=(served.address, names, asked.watchers // 2, stop, events))
            for _ in range(2)
        ]
        for one in watching:
            one.start()
        _, watched = _while_asking(served.address, names[0], lambda: time.sleep(asked.idle))
        before = len(memory.seen)
        rate, loaded = _while_asking(
            served.address, names[0], lambda: _upload_all(served.address, folder, files, asked.processes)
        )
        during = len(memory.seen)
        _, after = _while_asking(served.address, names[0], lambda: time.sleep(asked.idle))
        stop.set()
        seen = [count for _ in watching for count in events.get(timeout=120)]
        memory.stop.set()
        return {
            "bytes_per_second": rate,
            "get_job": {"idle": idle, "with_watchers": watched, "with_uploads_too": loaded, "after": after},
            "memory": {
                "alone": Memory(0, memory.seen[:alone]).part(0),
                "with_watchers": Memory(0, memory.seen[:before]).part(alone),
                "with_uploads_too": Memory(0, memory.seen[:during]).part(before),
                "last_tenth_of_uploads": Memory(0, memory.seen[:during]).part(during - max(1, (during - before) // 10)),
                "after": memory.part(during),
            },
            "events_per_watcher": {"least": min(seen), "most": max(seen), "watchers": len(seen)},
        }


def main() -> int:
    """Measures, and prints one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--uploads", type=int, default=20)
    parser.add_argument("--bytes", type=int, default=1 << 30)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2, help="of clients that upload")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of each part without uploads")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="shoal-load-"))
    try:
        files = _make_files(folder, asked.uploads, asked.bytes)
        mine, theirs = _SPAWN.Pipe()
        raw = _SPAWN.Process(target=_serve_raw, args=(theirs,), daemon=True)
        raw.start()
        limit = _upload_all(mine.recv(), folder, files, asked.processes)
        raw.kill()
        found = _measure(asked, folder, files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    summary = {
        "uploads": asked.uploads,
        "bytes_each": asked.bytes,
        "cores": os.cpu_count(),
        "raw_bytes_per_second": limit,
        "share_of_raw": found["bytes_per_second"] / limit,
        **found,
    }
    print(json.dumps(summary, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
