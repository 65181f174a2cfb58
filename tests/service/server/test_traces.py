"""One job through server, worker and agent, each a process of its own, seen by an OpenTelemetry collector."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from tests.service.cli.command import environment
from tests.service.server.test_agents import known
from tests.service.server_harness import settings_for, upload_messages, worker_command

collector = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc", reason="extra `otel`")

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass(frozen=True)
class Seen:
    """A span as the collector got it."""

    name: str
    service: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    start: int
    end: int


class Collector(collector.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.headers: list[dict[str, str]] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 (OpenTelemetry's name)
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        self.headers.append(dict(context.invocation_metadata()))
        for group in request.resource_spans:
            service = {one.key: one.value.string_value for one in group.resource.attributes}["service.name"]
            for span in (one for scope in group.scope_spans for one in scope.spans):
                values = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                times = (span.start_time_unix_nano, span.end_time_unix_nano)
                self.spans.append(Seen(span.name, service, *ids, values, *times))
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[tuple[Collector, str]]:
    found = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    collector.add_TraceServiceServicer_to_server(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield found, f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@contextmanager
def process(*command: str, log: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment(**variables)
        ) as started,
    ):
        try:
            yield started
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(30)


def run_job(address: str) -> job_pb.OptimizationJob:
    """Runs a job to its end, as a part of the caller's trace."""
    with grpc.insecure_channel(address) as channel:
        stub = ModelOptimizerStub(channel)
        artifact = stub.UploadArtifact(upload_messages(b"a model"))
        spec = {
            "model": {"pt2_artifact": artifact.name},
            "budget": {"fraction": 0.5},
            "target": {"device": "agent/edge"},
            "time_limit": {"seconds": 120},
        }
        job = stub.CreateOptimizationJob(
            service_pb.CreateOptimizationJobRequest(optimization_job=job_pb.OptimizationJob(spec=spec)),
            metadata=(("traceparent", f"00-{TRACE}-{CALLER}-01"),),
        )
        for event in stub.WatchOptimizationJob(service_pb.WatchOptimizationJobRequest(name=job.name), timeout=120):
            last = event
        return last.snapshot


@dataclass(frozen=True)
class Run:
    """What was left of it."""

    job: job_pb.OptimizationJob
    collector: Collector
    token: str
    server_log: str
    agent_log: str
    worker_log: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("traced")
    settings = settings_for(folder, worker_command=worker_command("asks"), log_format="json")
    token = known(settings)
    with collecting() as (found, endpoint):
        otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret-of-collector"}
        program = str(Path(__file__).parents[1] / "traced_process.py")
        with process(program, settings.model_dump_json(), log=folder / "server.log", **otel) as server:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            agent = ("-m", "service.cli", "agent", "--server", address, "--log-format", "json")
            agent += ("--state-dir", str(folder / "agent"), "--cool-below", "0")
            with process(*agent, log=folder / "agent.log", SHOAL_AGENT_TOKEN=token, **otel):
                end = time.monotonic() + 120
                while "agent/edge at" not in (folder / "agent.log").read_text():
                    assert time.monotonic() < end
                    time.sleep(0.05)
                job = run_job(address)
        # Whoever ends sends what is left.
    (worker_log,) = (settings.state_dir / "jobs").glob("*/log")
    logs = [path.read_text() for path in (folder / "server.log", folder / "agent.log", worker_log)]
    return Run(job, found, token, *logs)


def test_one_trace_goes_from_the_caller_to_the_device(run: Run) -> None:
    assert run.job.state == job_pb.OptimizationJob.STATE_SUCCEEDED, run.job.error
    mine = {span.name: span for span in run.collector.spans if span.trace == TRACE}

    path = ["shoal.v1.ModelOptimizer/CreateOptimizationJob", "job", "attempt", "baseline", "device work", "agent work"]
    assert set(mine) == set(path)
    parents = [CALLER, *(mine[name].id for name in path[:-1])]
    assert [mine[name].parent for name in path] == parents


def test_each_span_says_who_did_what(run: Run) -> None:
    mine = {span.name: span for span in run.collector.spans if span.trace == TRACE}

    assert mine["agent work"].service == "shoal-agent"
    assert {span.service for name, span in mine.items() if name != "agent work"} == {"shoal-server"}
    assert mine["job"].attributes["shoal.job"] == run.job.name
    assert mine["job"].attributes["shoal.outcome"] == "budget_met"
    assert mine["agent work"].attributes["shoal.work"] == "run"
    for inner, outer in (("attempt", "job"), ("baseline", "attempt"), ("agent work", "device work")):
        assert mine[outer].start <= mine[inner].start + 10_000_000
        assert mine[inner].end <= mine[outer].end + 10_000_000


def test_agents_that_only_wait_make_no_traces(run: Run) -> None:
    assert not [span for span in run.collector.spans if "LeaseWork" in span.name or "RegisterDevice" in span.name]


def test_logs_of_all_three_name_the_trace(run: Run) -> None:
    lines = {name: [json.loads(line) for line in text.splitlines()] for name, text in
             (("server", run.server_log), ("agent", run.agent_log), ("worker", run.worker_log))}  # fmt: skip

    started = next(line for line in lines["server"] if "starts, attempt 1" in line["message"])
    worked = next(line for line in lines["agent"] if line["message"].startswith("run: done"))
    assert (started["job"], started["trace_id"]) == (run.job.name, TRACE)
    assert worked["trace_id"] == TRACE
    assert worked["work"].startswith(run.job.name.replace("/", "-"))
    asked = next(line for line in lines["worker"] if line["logger"] == "asks")
    assert (asked["job"], asked["phase"], asked["trace_id"]) == (run.job.name, "baseline", TRACE)


def test_no_log_has_a_secret(run: Run) -> None:
    for text in (run.server_log, run.agent_log, run.worker_log):
        assert run.token not in text
        assert "secret-of-collector" not in text
    assert run.collector.headers[0]["api-key"] == "secret-of-collector"
