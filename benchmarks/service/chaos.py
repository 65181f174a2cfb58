"""`python -m benchmarks.service.chaos --jobs 1000 --clients 50 --kills 100`: whether anything gets lost.

Clients create jobs and follow them to their end, while the server or one of its workers is killed (SIGKILL) again and
again; every request is sent once more where it was not answered, and one in ten although it was. The server is a real
one; its workers keep a few steps and hand in a small result (`benchmarks.service.steps`). At the end:

* every job that was asked for is there, once, and in a final state;
* every job that succeeded has its files, whole, and no other has any;
* no process, no job's folder and no file in the store is left over.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.service.served import STEPS_WORKER, Served
from deploy.digest import file_digest
from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.client import Client, JobSnapshot, UnavailableError
from service.database.database import Database
from service.settings import ServerSettings
from service.storage.artifacts import ArtifactStore

_STATE = job_pb.OptimizationJob.State
_FILES = 6
_AGAIN = 0.1


@dataclass
class Seen:
    """What the clients saw."""

    jobs: dict[str, job_pb.OptimizationJob] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def _patiently(call: Any) -> Any:
    """Calls until the server is there to answer."""
    while True:
        try:
            return call()
        except UnavailableError:
            time.sleep(0.2)


def _client(number: int, jobs: int, served: Served, seen: Seen) -> None:
    chance = random.Random(number)  # noqa: S311
    with Client(served.address) as client:
        model = served.state.parent / "net.pt2"
        artifact = _patiently(lambda: client.upload(model, pb.ARTIFACT_KIND_MODEL))
        names = [_create(client, artifact.name, chance) for _ in range(jobs)]
        for name in names:
            try:
                job = _followed(client, name)
            except Exception as exc:  # noqa: BLE001 (whatever a client sees is a finding)
                with seen.lock:
                    seen.errors.append(f"{name}: {exc!r}")
                continue
            with seen.lock:
                if name in seen.jobs:
                    seen.errors.append(f"{name} was given out twice")
                seen.jobs[name] = job


def _followed(client: Client, name: str) -> job_pb.OptimizationJob:
    *_, last = client.watch(name, patience=600)
    if not isinstance(last, JobSnapshot) or _patiently(lambda: client.get(name)) != last.job:
        raise AssertionError("the last event is not the job as it is")
    return last.job


def _create(client: Client, artifact: str, chance: random.Random) -> str:
    spec = job_pb.OptimizationJobSpec(
        model=job_pb.ModelSource(pt2_artifact=artifact),
        budget=job_pb.Budget(fraction=0.5),
        seed=chance.randint(1, 20),
    )
    request = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    name: str = _patiently(lambda: client.create(spec, request_id=request)).name
    if chance.random() < _AGAIN:
        again = _patiently(lambda: client.create(spec, request_id=request)).name
        if again != name:
            raise AssertionError(f"one request made {name} and {again}")
    return name


def _kill(served: Served, kills: int, pause: float, done: threading.Event) -> Counter[str]:
    chance = random.Random(0)  # noqa: S311
    killed: Counter[str] = Counter()
    while sum(killed.values()) < kills and not done.wait(chance.uniform(0.2, 2.0) * pause):
        workers = served.workers()
        if workers and chance.random() < 0.5:
            with suppress(psutil.Error):
                chance.choice(workers).kill()
                killed["worker"] += 1
        else:
            served.end(signal.SIGKILL)
            killed["server"] += 1
            served.start()
    return killed


def _left_over(settings: ServerSettings, served: Served, succeeded: set[str]) -> dict[str, Any]:
    """Looks at what is there after the end, with the server stopped."""
    from sqlalchemy import select

    from service.database.tables import ArtifactRow, JobRow

    database = Database(settings.database)
    store = ArtifactStore(database, settings.storage)
    with database.read() as session:
        rows = session.scalars(select(ArtifactRow)).all()
        named = {
            link["name"].removeprefix("artifacts/")
            for (result,) in session.execute(select(JobRow.result).where(JobRow.result.is_not(None)))
            for link in result["artifacts"]
        }
        states = Counter(session.scalars(select(JobRow.state)))
    database.close()
    results = {row.id for row in rows if row.kind == "RESULT"}
    blobs = {path.name: path for path in (settings.state_dir / "artifacts").glob("??/*")}
    damaged = [row.id for row in rows if row.sha256 not in blobs or file_digest(blobs[row.sha256]) != row.sha256]
    del store
    folders = [
        path.name
        for path in (settings.state_dir / "jobs").iterdir()
        if {item.name for item in path.iterdir()} - {"log", "log.1"}
    ]
    return {
        "states_in_database": dict(states),
        "results_of_no_job": len(results - named),
        "results_missing": len(named - results) + _FILES * len(succeeded) - len(results),
        "artifacts_damaged": damaged,
        "blobs_of_nobody": len(blobs.keys() - {row.sha256 for row in rows}),
        "folders_left": folders,
        "processes_left": [process.pid for process in served.workers()],
    }


def main() -> int:
    """Runs it and prints one JSON object; the exit status says whether all went well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two kills, about")
    parser.add_argument("--workers", type=int, default=4)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="shoal-chaos-"))
    (folder / "net.pt2").write_bytes(b"a model")
    served = Served(
        folder / "state",
        worker_command=STEPS_WORKER,
        workers=asked.workers,
        queue_limit=10 * asked.jobs,
        principal_queue_limit=10 * asked.jobs,
        progress_interval=0.05,
        max_attempts=10,
    )
    summary = _run(asked, served)
    print(json.dumps(summary, indent=2))
    if summary["passed"]:
        shutil.rmtree(folder)
    else:
        print(f"everything is left in {folder}")
    return 0 if summary["passed"] else 1


def _run(asked: argparse.Namespace, served: Served) -> dict[str, Any]:
    seen, done, start = Seen(), threading.Event(), time.monotonic()
    with served, ThreadPoolExecutor(asked.clients + 1) as pool:
        killing = pool.submit(_kill, served, asked.kills, asked.pause, done)
        each = asked.jobs // asked.clients
        clients = [pool.submit(_client, number, each, served, seen) for number in range(asked.clients)]
        for client in clients:
            client.result()
        seconds = time.monotonic() - start
        done.set()
        killed = killing.result()
    states = Counter(_STATE.Name(job.state).removeprefix("STATE_") for job in seen.jobs.values())
    reasons = Counter(job.error.reason for job in seen.jobs.values() if job.HasField("error"))
    succeeded = {name for name, job in seen.jobs.items() if job.state == _STATE.STATE_SUCCEEDED}
    left = _left_over(ServerSettings(state_dir=served.state), served, succeeded)
    final = {"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"}
    passed = (
        not seen.errors
        and len(seen.jobs) == each * asked.clients == sum(left["states_in_database"].values())
        and left["states_in_database"].keys() <= final
        and not any(value for name, value in left.items() if name != "states_in_database")
    )
    return {
        "passed": passed,
        "jobs": len(seen.jobs),
        "clients": asked.clients,
        "killed": dict(killed),
        "seconds": round(seconds, 1),
        "states": dict(states),
        "failures": dict(reasons),
        "errors": seen.errors[:20],
        **left,
    }


if __name__ == "__main__":
    raise SystemExit(main())
