"""How long lists take with many jobs: `python -m benchmarks.service.listing [--jobs 100000] [--database-url URL]`.

Fills an empty database (default: SQLite in a temporary folder) with finished jobs and their results, starts a real
server over it in a process of its own, and prints percentiles of `ListOptimizationJobs` as callers see them, and of
what the queue does while 1,000 jobs wait, as a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import MessageToDict
from sqlalchemy import insert

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.access.principal import OPERATOR_FILE
from service.access.tokens import NewToken, TokenStore
from service.database.clock import now
from service.database.database import Database
from service.database.tables import JobRow
from service.jobs.job import NewJob
from service.jobs.states import State
from service.jobs.store import Ending, JobStore
from service.spec import JobSpec

QUEUED = 1000
FEW = 10
"""Jobs of the principal who has few, the oldest of all."""

_BATCH = 2000
_PROGRAM = (
    "import sys\n"
    "from service.server import serve\n"
    "from service.settings import ServerSettings\n"
    "serve(ServerSettings.model_validate_json(sys.argv[1]), lambda address: print(address, flush=True))\n"
)
_SPEC = JobSpec.model_validate({"model": {"pt2_artifact": "artifacts/some"}, "budget": {"fraction": 0.5}})


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="How long lists take with many jobs.")
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--database-url", help="of an empty database")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shoal-listing-") as name:
        url = arguments.database_url or f"sqlite:///{name}/shoal.db"
        tokens = fill(url, arguments.jobs)
        print(f"{arguments.jobs} jobs, {arguments.calls} calls each, {url.partition(':')[0]}\n")
        print("| | p50, ms | p99, ms |\n|---|---|---|")
        for what, times in measure(url, Path(name), tokens, arguments):
            low, high = np.percentile(np.array(times) * 1e3, [50, 99])
            print(f"| {what} | {low:.1f} | {high:.1f} |", flush=True)
    return 0


def fill(url: str, jobs: int) -> dict[str, str]:
    """Makes the jobs, and returns a token for each of three principals."""
    database = Database(url)
    result, spec = make_result(), _SPEC.model_dump(mode="json")
    for begin in range(0, jobs, _BATCH):
        rows = [make_row(number, jobs, spec, result) for number in range(begin, min(jobs, begin + _BATCH))]
        with database.write() as session:
            session.execute(insert(JobRow), rows)
    tokens = {name: TokenStore(database).add(NewToken(name)) for name in ("many", "few", "none")}
    database.close()
    return tokens


def make_row(number: int, jobs: int, spec: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Returns the columns of one job."""
    moment = now() - timedelta(seconds=jobs - number)
    return {
        "id": f"job-{number:08x}",
        "principal": "few" if number < FEW else "many" if number % 10 else f"p{number % 1000}",
        "request_hash": f"{number:064x}",
        "spec": spec,
        "display_name": f"number {number}",
        "state": State.SUCCEEDED,
        "result": result,
        "create_time": moment,
        "start_time": moment,
        "end_time": moment,
        "attempts": 1,
        "last_sequence": 1,
    }


def make_result() -> dict[str, Any]:
    """Returns a result of ordinary size, as a job keeps it."""
    candidates = [job_pb.CandidateFacts(label=f"{n} blocks", latency_ms=n, divergence=0.1) for n in range(20)]
    refusals = [job_pb.Refusal(where=f"layer{n}.1", code="border", reason="Its padding is seen.") for n in range(10)]
    links = [
        job_pb.ArtifactLink(name=f"artifacts/{n:020x}", filename=f"file{n}.onnx", sha256=f"{n:064x}") for n in range(6)
    ]
    result = job_pb.OptimizationResult(
        outcome=job_pb.OptimizationResult.OUTCOME_BUDGET_MET,
        explanation="It is within the budget.",
        candidates=candidates,
        refusals=refusals,
        artifacts=links,
    )
    return MessageToDict(result, preserving_proto_field_name=True)


def measure(url: str, folder: Path, tokens: dict[str, str], arguments: Any) -> Iterator[tuple[str, list[float]]]:
    """Yields what was timed, and its times in seconds."""
    asked = service_pb.ListOptimizationJobsRequest
    with serving(url, folder) as (address, operator), grpc.insecure_channel(address) as channel:
        stub = ModelOptimizerStub(channel)
        for what, token, request in (
            ("first 50 of all jobs", operator, asked()),
            ("first 500 of all jobs", operator, asked(page_size=500)),
            ("50 in the middle of all jobs", operator, asked(page_token=token_before(stub, operator))),
            ("first 50 of a principal who has nearly all", tokens["many"], asked()),
            (f"{FEW} of a principal who has no more, the oldest", tokens["few"], asked()),
            ("those of a principal who has none", tokens["none"], asked()),
        ):
            call = partial(stub.ListOptimizationJobs, request, metadata=(("authorization", f"Bearer {token}"),))
            call()
            yield what, timed(call, arguments.calls)
    yield from queue_times(url, arguments.calls)


def token_before(stub: ModelOptimizerStub, operator: str) -> str:
    """Returns the token of a page in the middle."""
    headers, token = (("authorization", f"Bearer {operator}"),), ""
    for _ in range(20):
        request = service_pb.ListOptimizationJobsRequest(page_size=500, page_token=token)
        token = stub.ListOptimizationJobs(request, metadata=headers).next_page_token or token
    return token


def queue_times(url: str, calls: int) -> Iterator[tuple[str, list[float]]]:
    """Yields times of the store's own methods, with 1,000 jobs that wait."""
    database = Database(url)
    store = JobStore(database)
    made: list[str] = []
    yield (
        "create (counts the queue)",
        timed(lambda: made.append(store.create(NewJob(_SPEC, principal="many"), 10_000, 10_000).id), calls),
    )
    claimed: list[str] = []

    def claim() -> None:
        job = store.claim()
        assert job is not None
        claimed.append(job.id)

    yield "claim", timed(claim, calls)
    yield (
        "glance at 200 running and 200 watched jobs",
        timed(lambda: store.glance(claimed[:200], dict.fromkeys(claimed[:200], 1)), calls),
    )
    yield "renew 200 leases", timed(lambda: store.renew(dict.fromkeys(claimed[:200], 1)), calls)
    yield "look for lost jobs", timed(lambda: store.recover(5, starting=False), calls)
    yield "finish", timed(lambda: store.finish(claimed.pop(), Ending(State.SUCCEEDED), 1), calls)
    database.close()


def timed(call: Callable[[], object], calls: int) -> list[float]:
    """Returns how long each of some calls took."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times


@contextmanager
def serving(url: str, folder: Path) -> Iterator[tuple[str, str]]:
    """A server that runs no job, its address and the token of its operator."""
    settings = {
        "address": "127.0.0.1:0",
        "state_dir": str(folder / "state"),
        "database_url": url,
        "worker_command": [sys.executable, "-c", "import time; time.sleep(600)"],
        "principal_calls_per_second": 1e6,
        "principal_burst": 1_000_000,
        "min_free_bytes": 0,
    }
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, json.dumps(settings)], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            yield address, (folder / "state" / OPERATOR_FILE).read_text().strip()
        finally:
            server.terminate()


if __name__ == "__main__":
    sys.exit(main())
