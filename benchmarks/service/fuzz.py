"""`python -m benchmarks.service.fuzz --seconds 3600 --seed 1`: bad input for a real server, over the wire.

Requests for every method of every service, made at random from the descriptors and in part broken bytes; streams that
begin in the middle, lie about sizes and checksums, or are left; models, data and tokenizers, whole and broken (those of
`python -m benchmarks.fuzz`), and jobs and dry runs on them, so that workers open them. A finding is

* a status that says that it was the server's fault, or none of the documented ones;
* an answer without a reason, or one that holds something of the server's machine: a path, a traceback;
* a job that ended for no documented reason, through our fault, or with a message that is not fit for a user;
* an unexpected error in the server's log, a dead server, or one that does not answer a simple question any more;
* a job that does not come to an end.

Prints each kind of finding once, and one JSON object at the end; the exit status is 1 if there were any.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, final

import grpc
import numpy as np
import psutil
from crc32c import crc32c
from google.longrunning import operations_pb2
from google.protobuf import message_factory
from google.protobuf.message import Message

from benchmarks.fuzz.values import PATHS, Random, chance, pick
from benchmarks.service.files import any_file
from benchmarks.service.jobs import Jobs
from benchmarks.service.judging import Findings, Judge
from benchmarks.service.messages import encode, fill
from benchmarks.service.served import Served
from protos.shoal.v1 import device_agents_pb2 as agents_pb
from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1.device_agents_pb2_grpc import DeviceAgentsStub
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.database.database import Database
from service.devices.agents import AgentStore
from service.settings import ServerSettings

_SERVICES: Final = (
    *pb.DESCRIPTOR.services_by_name.values(),
    *agents_pb.DESCRIPTOR.services_by_name.values(),
    *operations_pb2.DESCRIPTOR.services_by_name.values(),
)
_DEADLINE: Final = 3.0
_AGENT: Final = "fuzzed"
_SESSION: Final = "session-0001"
_LOOK_EVERY: Final = 200
_MOST_GROWTH: Final = 1 << 30


@final
class Fuzzer:
    """Sends and judges."""

    def __init__(self, served: Served, random: Random, findings: Findings, agent_token: str) -> None:
        self._served, self._random, self._findings = served, random, findings
        self._agent = (("authorization", f"Bearer {agent_token}"),)
        self._channel = grpc.insecure_channel(served.address)
        self._stub = ModelOptimizerStub(self._channel)
        self._known = ["optimizationJobs/job-1", "artifacts/none", "local/cpu", f"agent/{_AGENT}", "auto", _SESSION]
        self._judge = Judge(served.state, findings)
        self._jobs = Jobs(self._stub, self._judge, random, self.learn)
        self._methods = [method for service in _SERVICES for method in service.methods]
        self._log_place = 0
        self.sent = 0

    def learn(self, *names: str) -> None:
        """Remembers strings that mean something to the server."""
        self._known += names
        del self._known[6:-60]

    def step(self) -> None:
        """Sends one thing."""
        self.sent += 1
        what = int(self._random.integers(100))
        if what < 84:
            self._call(pick(self._random, self._methods))
        elif what < 96:
            self._upload()
        elif what < 99:
            self._jobs.ask(self._known)
        else:
            self._jobs.analyze()

    def _call(self, method: Any) -> None:
        request_type = message_factory.GetMessageClass(method.input_type)
        count = int(pick(self._random, (1, 1, 2, 5))) if method.client_streaming else 1
        made = [fill(request_type(), self._random, self._known) for _ in range(count)]
        for message in made:
            # What nobody but a session of the agent's may ask would hardly ever be asked otherwise.
            if "session" in message.DESCRIPTOR.fields_by_name and chance(self._random, 0.7):
                message.session = _SESSION  # type: ignore[attr-defined]
        sent = [encode(message, self._random) for message in made]
        path = f"/{method.containing_service.full_name}/{method.name}"
        open_call = {
            (False, False): self._channel.unary_unary,
            (False, True): self._channel.unary_stream,
            (True, False): self._channel.stream_unary,
            (True, True): self._channel.stream_stream,
        }[method.client_streaming, method.server_streaming]
        call = open_call(path)
        # Only an agent gets past the first check of its methods.
        metadata = self._agent if method.containing_service.name == "DeviceAgents" else None
        options = {"timeout": _DEADLINE, "metadata": metadata}
        content = iter(sent) if method.client_streaming else sent[0]
        self._judge.answer(method.name, lambda: _drain(call(content, **options)))

    def _upload(self) -> None:
        """Sends a file that may be anything, and in part says something else about it."""
        file = any_file(self._random)
        honest = chance(self._random, 0.7)
        sizes = (len(file.data), len(file.data), len(file.data), len(file.data) + 1, 0, -1, 2**62)
        metadata = pb.UploadMetadata(
            upload_id=f"upload-{int(self._random.integers(10**9))}"
            if honest
            else str(pick(self._random, PATHS)).strip("\ud7ff"),
            kind=file.kind,
            filename=file.filename,
            size_bytes=int(pick(self._random, sizes)),
            sha256=hashlib.sha256(file.data).hexdigest() if honest else "0" * 64,
        )
        stored = self._judge.answer(
            "UploadArtifact", lambda: self._stub.UploadArtifact(self._chunks(metadata, file.data), timeout=_DEADLINE)
        )
        if stored is not None:
            self.learn(stored.name, stored.sha256)

    def _chunks(self, metadata: Message, data: bytes) -> Iterator[pb.UploadArtifactRequest]:
        if chance(self._random, 0.95):
            yield pb.UploadArtifactRequest(metadata=metadata)
        piece = int(pick(self._random, (len(data), 1000, 7, 1 << 20)))
        for start in range(0, min(len(data), 50 * piece), max(piece, 1)):
            part = data[start : start + piece]
            lie = chance(self._random, 0.02)
            yield pb.UploadArtifactRequest(
                chunk=pb.UploadChunk(offset=start + lie, data=part, crc32c=crc32c(part) ^ chance(self._random, 0.02))
            )
        if chance(self._random, 0.05):
            yield pb.UploadArtifactRequest()

    def look(self) -> None:
        """Looks at the server from outside."""
        if self._served.returncode is not None:
            self._findings.add("the server died", self._served.log.read_text(errors="replace")[-1500:])
            raise SystemExit("the server died")
        try:
            self._stub.ListOptimizationJobs(pb.ListOptimizationJobsRequest(page_size=1), timeout=30)
        except grpc.RpcError as exc:
            if exc.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                self._findings.add(f"the server does not answer: {exc.code().name}", exc.details() or "")
        self._jobs.review()
        with self._served.log.open(errors="replace") as log:
            log.seek(self._log_place)
            news = log.read()
            self._log_place = log.tell()
        for mark in ("unexpected error", "Task exception was never retrieved", "supervision failed"):
            if mark in news:
                self._findings.add(f"log: {mark}", news[news.index(mark) :])

    def unfinished(self, patience: float) -> list[str]:
        """Cancels what waits and waits for the rest; returns the jobs that do not end."""
        end = time.monotonic() + patience
        while True:
            names, token = [], ""
            while True:
                page = self._stub.ListOptimizationJobs(pb.ListOptimizationJobsRequest(page_token=token), timeout=60)
                names += [job.name for job in page.optimization_jobs if not job.HasField("end_time")]
                if not (token := page.next_page_token):
                    break
            if not names or time.monotonic() > end:
                return names
            for name in names:
                self._stub.CancelOptimizationJob(pb.CancelOptimizationJobRequest(name=name), timeout=60)
            time.sleep(1)


def _drain(call: Any) -> Any:
    if not hasattr(call, "__next__"):
        return call
    taken = None
    for count, taken in enumerate(call):  # noqa: B007
        if count == 3:
            call.cancel()
            break
    return taken


def _make_agent(served: Served) -> str:
    """Makes an agent known and registers it; returns its token."""
    database = Database(ServerSettings(state_dir=served.state).database)
    token = AgentStore(database).add(_AGENT)
    database.close()
    with grpc.insecure_channel(served.address) as channel:
        request = agents_pb.RegisterDeviceRequest(session=_SESSION)
        metadata = (("authorization", f"Bearer {token}"),)
        DeviceAgentsStub(channel).RegisterDevice(request, metadata=metadata)
    return token


def main() -> int:
    """Runs until the time is over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="shoal-fuzz-"))
    findings = Findings()
    settings = {
        "principal_calls_per_second": 1e6,
        "principal_burst": 10**6,
        "principal_uploads": 10**6,
        "queue_limit": 30,
        "workers": 2,
        "worker_memory_bytes": 4 << 30,
        "heartbeat_seconds": 1.0,
    }
    with Served(folder / "state", **settings, principal_stored_bytes=1 << 33) as served:
        fuzzer = Fuzzer(served, np.random.default_rng(asked.seed), findings, _make_agent(served))
        server, start = psutil.Process(served.pid), time.monotonic()
        first = None
        while time.monotonic() - start < asked.seconds:
            fuzzer.step()
            if fuzzer.sent % _LOOK_EVERY == 0:
                fuzzer.look()
                first = first or server.memory_info().rss
        fuzzer.look()
        left = fuzzer.unfinished(120)
        fuzzer.look()
        last = server.memory_info().rss
    if left:
        findings.add("jobs without an end", ", ".join(left))
    if first is not None and last - first > _MOST_GROWTH:
        findings.add("memory grew", f"{first} to {last}")
    summary = {
        "sent": fuzzer.sent,
        "minutes": round((time.monotonic() - start) / 60, 1),
        "findings": dict(findings.kinds),
        "memory_mib": [round((value or 0) / 2**20) for value in (first, last)],
        "ended jobs": dict(sorted(findings.ends.items())),
        "answers": dict(sorted(findings.calls.items())),
    }
    print(json.dumps(summary, indent=1))
    if not findings.kinds:
        shutil.rmtree(folder)
    return 1 if findings.kinds else 0


if __name__ == "__main__":
    raise SystemExit(main())
