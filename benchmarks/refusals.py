"""What wrong input and broken machines get from a real server: `python -m benchmarks.refusals [--small-disk DIR]`.

Starts `shoal serve`, does one wrong thing after another over gRPC, prints the status, the stable reason and the message
of each as a Markdown table, and asks the health service after each whether the server still serves. DIR is a folder on
a file system with some free megabytes (such as a tmpfs), for the full disk.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np
import psutil
import torch
from crc32c import crc32c
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from examples.demo import SIZE, build_network, save
from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub

MODEL, DATA = pb.ARTIFACT_KIND_MODEL, pb.ARTIFACT_KIND_DATA
State = job_pb.OptimizationJob.State


@dataclass(frozen=True)
class Answer:
    """What a caller sees."""

    status: str
    reason: str
    message: str


class Server:
    """A `shoal serve` of its own, and wrong ways to use it."""

    def __init__(self, state: Path) -> None:
        command = [sys.executable, "-m", "service.cli", "serve", "--address", "127.0.0.1:0", "--state-dir", str(state)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        found = next(filter(None, (re.search(r"serving on (\S+),", line) for line in self.process.stdout)), None)
        if found is None:
            raise SystemExit("the server did not start")
        self.channel = grpc.insecure_channel(found.group(1))
        self.stub = ModelOptimizerStub(self.channel)

    def alive(self) -> bool:
        """Returns whether the server says that it serves."""
        answer = health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def stop(self) -> None:
        """Ends the server."""
        self.channel.close()
        self.process.terminate()
        self.process.wait(30)

    def upload(self, data: bytes, name: str, kind: pb.ArtifactKind.ValueType = MODEL, flip: int = 0) -> pb.Artifact:
        """Sends bytes in one chunk; `flip` is xored into its checksum."""
        identity = f"upload-{time.monotonic_ns()}"
        size = 1 << 20

        def messages() -> Iterator[pb.UploadArtifactRequest]:
            metadata = pb.UploadMetadata(
                upload_id=identity, filename=name, kind=kind, size_bytes=len(data), sha256=sha256(data).hexdigest()
            )
            yield pb.UploadArtifactRequest(metadata=metadata)
            for offset in range(0, len(data), size):
                part = data[offset : offset + size]
                chunk = pb.UploadChunk(offset=offset, data=part, crc32c=crc32c(part) ^ flip)
                yield pb.UploadArtifactRequest(chunk=chunk)

        artifact: pb.Artifact = self.stub.UploadArtifact(messages(), timeout=60)
        return artifact

    def job(self, model: job_pb.ModelSource, data: job_pb.DataReference | None = None, fraction: float = 0.5) -> str:
        """Creates a job without fine-tuning and returns its name."""
        spec = job_pb.OptimizationJobSpec(
            model=model,
            budget=job_pb.Budget(fraction=fraction),
            data=data,
            fine_tuning=job_pb.FineTuning(disabled=True),
        )
        job = job_pb.OptimizationJob(spec=spec)
        request = pb.CreateOptimizationJobRequest(optimization_job=job)
        name: str = self.stub.CreateOptimizationJob(request, timeout=60).name
        return name

    def end(self, name: str, seconds: float = 120) -> Answer:
        """Waits for a job and returns how it ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job = self.stub.GetOptimizationJob(pb.GetOptimizationJobRequest(name=name), timeout=30)
            if job.HasField("end_time"):
                state = State.Name(job.state).removeprefix("STATE_")
                return Answer(f"job {state}", job.error.reason, job.error.message)
            time.sleep(0.2)
        return Answer("job still at work", "", "")


def answer(act: Callable[[], Answer]) -> Answer:
    """Returns what an act gives; a refused call gives its status, reason and message."""
    try:
        return act()
    except grpc.RpcError as error:
        reason, details = "", [error.details()]
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                reason = info.reason
            elif detail.Unpack(bad):
                details += [f"[{violation.field}]" for violation in bad.field_violations]
        return Answer(error.code().name, reason, " ".join(details))


@dataclass(frozen=True)
class Samples:
    """Right input, to be made wrong."""

    pt2: bytes

    @classmethod
    def made(cls, folder: Path) -> Samples:
        """Returns the demo's network, untrained."""
        torch.manual_seed(0)
        save(build_network().eval(), folder / "net.pt2")
        return cls((folder / "net.pt2").read_bytes())


def with_pickle(pt2: bytes) -> bytes:
    """Returns the model with a pickled object that runs a command among its payloads."""

    class Command:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, ("touch pwned",)

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(pt2)) as source, zipfile.ZipFile(out, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if "weights" in entry.filename:
                told = data.replace(b'"use_pickle": false', b'"use_pickle": true')
                data = told if entry.filename.endswith(".json") else pickle.dumps(Command())
            target.writestr(entry.filename, data)
    return out.getvalue()


def npz(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Returns an image data set as a file."""
    out = io.BytesIO()
    np.savez(out, images=images, labels=labels)
    return out.getvalue()


def digits(count: int, classes: int, shape: tuple[int, ...] = (SIZE, SIZE)) -> bytes:
    """Returns random images."""
    generator = np.random.default_rng(0)
    return npz(generator.integers(0, 256, (count, *shape), np.uint8), generator.integers(0, classes, count))


def cases(server: Server, samples: Samples) -> Iterator[tuple[str, Callable[[], Answer]]]:
    """Yields a name and an act for everything that can go wrong without a second file system."""

    def model(data: bytes) -> job_pb.ModelSource:
        return job_pb.ModelSource(pt2_artifact=server.upload(data, "net.pt2").name)

    def data(train: bytes, validation: bytes) -> job_pb.DataReference:
        names = [server.upload(part, "data.npz", DATA).name for part in (train, validation)]
        sources = [job_pb.DataSplit(artifact=name) for name in names]
        return job_pb.DataReference(train=sources[0], validation=sources[1])

    def killed() -> Answer:
        name = server.job(model(samples.pt2), data(digits(512, 10), digits(64, 10)))
        children: list[psutil.Process] = []
        while not children:
            time.sleep(0.2)
            children = psutil.Process(server.process.pid).children()
        time.sleep(1)  # nothing is kept yet; later, another worker would go on
        children[0].send_signal(signal.SIGKILL)
        return server.end(name)

    fine = samples.pt2
    named = job_pb.ModelSource(named=job_pb.NamedModel(architecture="timm:resnet999"))
    yield "chunk with a wrong checksum", lambda: Answer("OK", "", server.upload(fine, "net.pt2", flip=1).name)
    yield "truncated .pt2", lambda: server.end(server.job(model(fine[: len(fine) // 2])))
    yield ".pt2 with a pickled payload", lambda: server.end(server.job(model(with_pickle(fine))))
    yield "unknown architecture", lambda: server.end(server.job(named))
    yield "budget of zero", lambda: server.end(server.job(model(fine), fraction=0.0))
    one_class = digits(512, 1)
    yield "data with one class", lambda: server.end(server.job(model(fine), data(one_class, one_class)))
    wrong = digits(64, 10, (SIZE, SIZE, 3, 2))
    yield "validation set of the wrong shape", lambda: server.end(server.job(model(fine), data(digits(512, 10), wrong)))
    yield "killed worker", killed


@contextmanager
def serving(state: Path) -> Iterator[Server]:
    """Runs a server inside the `with`."""
    server = Server(state)
    try:
        yield server
    finally:
        server.stop()


def show(server: Server, name: str, act: Callable[[], Answer]) -> None:
    """Does one thing and prints its row."""
    got = answer(act)
    alive = "yes" if server.alive() else "NO"
    print(f"| {name} | {got.status} | {got.reason} | {got.message} | {alive} |", flush=True)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="What wrong input gets.")
    parser.add_argument("--small-disk", type=Path)
    small: Path | None = parser.parse_args().small_disk
    print("| what | status | reason | message | server lives |\n|---|---|---|---|---|")
    with TemporaryDirectory() as name:
        folder = Path(name)
        samples = Samples.made(folder)
        with serving(folder / "state") as server:
            for title, act in cases(server, samples):
                show(server, title, act)
        if small is not None:
            with serving(small / "state") as server:
                data = os.urandom(256 << 20)
                show(server, "full disk", lambda: Answer("OK", "", server.upload(data, "net.pt2").name))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
