"""Whether what a server answers is right: statuses, reasons, ends of jobs, and nothing about its machine."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from benchmarks.fuzz.judge import unfit
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.faults import BY_REASON, TIME_LIMIT

_BAD: Final = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS"})
# The server says DATA_LOSS where bytes are not those that were announced; that is an answer to a lie.
_LIES: Final = frozenset({"CHECKSUM_MISMATCH"})
_NO_REASON: Final = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "UNIMPLEMENTED"})
# gRPC's own answer to a message that never gets as far as the service.
_TOO_LONG: Final = "SERVER: Received message larger than max"
_DOCUMENTED: Final = frozenset({*BY_REASON, TIME_LIMIT.reason})
# What no file that a stranger sends may do to a worker.
_CRASHES: Final = frozenset({"INTERNAL", "WORKER_DIED", "WORKER_LOST", "WORKER_PROTOCOL", "WORKER_PROCESSES"})
_MARKS: Final = ("Traceback (most recent", 'File "', "site-packages")


@final
class Findings:
    """What was found, each kind once."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()

    def add(self, kind: str, detail: str) -> None:
        """Counts a finding, and prints the first of its kind."""
        self.kinds[kind] += 1
        if self.kinds[kind] == 1:
            print(f"FINDING {kind}: {detail[:1500]}", flush=True)


@final
class Judge:
    """Looks at answers, errors and ended jobs of one server."""

    def __init__(self, state: Path, findings: Findings) -> None:
        """Takes the server's state folder, of which nobody outside needs to know."""
        self._findings = findings
        self._state = str(state)
        self._secrets = (self._state, str(Path(__file__).resolve().parents[2]), sys.prefix, *_MARKS)

    def answer(self, name: str, send: Callable[[], Any]) -> Any:
        """Sends something and returns the answer, None where it is an error."""
        try:
            answer = send()
        except grpc.RpcError as exc:
            self._findings.calls[f"{name} {exc.code().name}"] += 1
            self._error(name, exc)
            return None
        self._findings.calls[f"{name} OK"] += 1
        if isinstance(answer, Message) and not name.startswith("DownloadArtifact"):
            self._silence(name, answer.SerializeToString(), answer)
        return answer

    def _error(self, name: str, error: Any) -> None:
        code, text = error.code().name, error.details() or ""
        told = dict(error.trailing_metadata() or ())
        status = status_pb2.Status.FromString(told.get("grpc-status-details-bin", b""))
        reason = _reason(status)
        if code in _BAD and reason not in _LIES:
            self._findings.add(f"{name} {code} {reason or text[:60]}", text)
        if not reason and code not in _NO_REASON and not text.startswith(_TOO_LONG):
            self._findings.add(f"{name} {code} without a reason", text)
        self._silence(name, text.encode() + status.SerializeToString(), f"{text} {status}")

    def _silence(self, name: str, data: bytes, shown: object) -> None:
        """Looks for what an answer must not tell."""
        for secret in self._secrets:
            if secret.encode() in data:
                self._findings.add(f"{name} tells of {secret}", str(shown))

    def end(self, job: job_pb.OptimizationJob, events: list[Message], sent: str) -> None:
        """Judges how a job ended.

        Args:
            job: A job that has ended.
            events: What its watchers were told.
            sent: What it worked on, in words.
        """
        state, error = job_pb.OptimizationJob.State.Name(job.state), job.error
        what = sent.split(" ", 1)[0]
        self._findings.ends[f"{what}: {state.removeprefix('STATE_')} {error.reason}".strip()] += 1
        for told in (job, *events):
            self._silence("a job", told.SerializeToString(), told)
        if not job.HasField("error"):
            if state in {"STATE_FAILED", "STATE_EXPIRED"}:
                self._findings.add(f"a job {state} without an error", f"{sent}: {job}")
            return
        where = f"a job {state} {error.reason} by {error.blame or 'nobody'}"
        if error.reason not in _DOCUMENTED or error.blame not in {"caller", "machine", "shoal"}:
            self._findings.add(f"{where}, which is not documented", f"{sent}: {error.message}")
        if error.reason in _CRASHES or error.blame == "shoal":
            self._findings.add(where, f"{sent}: {error.message} ({job.name})")
        if bad := unfit(error.message, [self._state]):
            self._findings.add(f"{where} with a message that is {' and '.join(bad)}", f"{sent}: {error.message!r}")


def _reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for detail in status.details if detail.Unpack(info)), "")
