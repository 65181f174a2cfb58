"""What runs on a node, without a cluster: who asks is the test."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.digest import file_digest
from service.executors.base import Errand
from service.executors.node import Landed, NodeWorker, Parcel
from service.faults import WORKER_MEMORY
from service.programs import version_of
from service.spec import JobSpec
from service.storage.artifacts import Artifact, ArtifactKind, new_artifact
from service.worker.environment import TOKEN_VARIABLE
from service.worker.messages import WorkOrder
from tests.service.server_harness import alive, eventually, worker_command


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """A model in a store."""
    file = tmp_path / "net.pt2"
    file.write_bytes(b"a model")
    digest = file_digest(file)
    place = tmp_path / "artifacts" / digest[:2]
    place.mkdir(parents=True)
    file.rename(place / digest)
    return new_artifact(ArtifactKind.MODEL, "net.pt2", 7, digest)


def parcel_for(tmp_path: Path, artifact: Artifact, *command: str, **spec: Any) -> Parcel:
    fields = {"model": {"pt2_artifact": artifact.name}, "budget": {"fraction": 0.5}}
    order = WorkOrder(
        job="optimizationJobs/some",
        task="optimize",
        spec=JobSpec.model_validate(fields | spec),
        folder=Path("/of/the/server"),
        cache_folder=Path("/of/the/server"),
        deadline_seconds=30,
    )
    return Parcel(
        errand=Errand(order, "local", 1),
        artifacts=(artifact,),
        storage=f"file://{tmp_path / 'artifacts'}",
        settings={"worker_command": worker_command(*command), "cancel_grace": 0.5},
        root=tmp_path / "node",
        mirror=True,
        processors=1,
        gpus=False,
        silence_seconds=20,
        version=version_of("shoal"),
    )


def see_through(node: NodeWorker) -> tuple[list[str], Landed]:
    """Everything that was said, and what came of it."""
    said: list[str] = []
    over = False
    while not over:
        lines, over = node.events(len(said), 1.0)
        said += lines
    return said, node.landed()


def test_a_parcel_becomes_a_result_in_the_store(tmp_path: Path, artifact: Artifact) -> None:
    node = NodeWorker()
    node.start(parcel_for(tmp_path, artifact, "finish"))
    said, landed = see_through(node)
    model = next(item for item in landed.ended.artifacts if item.filename == "model.onnx")

    assert ['"load"' in line for line in said] == [True, False, False]
    assert landed.ended.report is not None
    assert (tmp_path / "artifacts" / model.sha256[:2] / model.sha256).read_bytes() == b"shallow" * 1000
    assert list((tmp_path / "node/jobs").iterdir()) == []


def test_what_was_said_is_told_again_until_it_is_acknowledged(tmp_path: Path, artifact: Artifact) -> None:
    node = NodeWorker()
    node.start(parcel_for(tmp_path, artifact, "finish"))
    see_through(node)
    # All three were acknowledged but the last ones, which nobody asked after.
    first, over = node.events(2, 0.0)
    again, _ = node.events(2, 0.0)

    assert over
    assert first == again


def test_a_stop_ends_the_worker(tmp_path: Path, artifact: Artifact) -> None:
    node = NodeWorker()
    node.start(parcel_for(tmp_path, artifact, "sleep"))
    node.events(0, 10.0)
    node.stop()

    assert see_through(node)[1].ended.exit.stopped


async def test_a_node_that_hears_nothing_ends_its_worker(tmp_path: Path, artifact: Artifact) -> None:
    node = NodeWorker()
    node.start(replace(parcel_for(tmp_path, artifact, "sleep"), silence_seconds=0.5))
    await eventually(lambda: list((tmp_path / "node").glob("jobs/*/job")) != [], 10)
    await eventually(lambda: list((tmp_path / "node").glob("jobs/*/job")) == [], 20)
    see_through(node)

    assert node.landed().ended.exit.stopped


def test_an_attempt_elsewhere_goes_on_from_the_mirror(tmp_path: Path, artifact: Artifact) -> None:
    first, second = NodeWorker(), NodeWorker()
    parcel = parcel_for(tmp_path, artifact, "keeper", "1")
    first.start(parcel)
    died = see_through(first)[1].ended
    second.start(replace(parcel, errand=replace(parcel.errand, attempt=2)))
    said, landed = see_through(second)

    assert (died.exit.returncode, died.went_on) == (-9, True)
    assert landed.ended.report is not None
    assert '"limit":25.0' in said[0]


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"version": "another"}, "EXECUTOR_FAILED", "install the same version"),
        ({"storage": "file:///nowhere"}, "EXECUTOR_FAILED", "storage_url"),
        ({"settings": {"worker_command": ("/nonexistent",)}}, "INTERNAL", "unexpected FileNotFoundError"),
    ],
)
def test_what_cannot_be_run_says_why(
    tmp_path: Path, artifact: Artifact, changes: dict[str, Any], reason: str, words: str
) -> None:
    node = NodeWorker()
    node.start(replace(parcel_for(tmp_path, artifact, "finish"), **changes))
    error = see_through(node)[1].ended.exit.error

    assert error is not None
    assert error.reason == reason
    assert words in error.message


def test_a_node_s_memory_is_shared_by_the_jobs_that_find_room_there(tmp_path: Path, artifact: Artifact) -> None:
    node = NodeWorker()
    node.start(replace(parcel_for(tmp_path, artifact, "bomb", "memory"), processors=1e-5))
    excess = see_through(node)[1].ended.exit.excess

    assert excess is not None
    assert excess.fault is WORKER_MEMORY


def test_a_path_of_the_server_has_to_be_there(tmp_path: Path, artifact: Artifact) -> None:
    node = NodeWorker()
    node.start(parcel_for(tmp_path, artifact, "finish", data={"train": {"server_path": "/of/the/server/data"}}))
    error = see_through(node)[1].ended.exit.error

    assert error is not None
    assert "has no /of/the/server/data; data_roots have to be the same" in error.message


async def test_what_a_dead_attempt_left_is_cleared_away(tmp_path: Path, artifact: Artifact) -> None:
    jobs = tmp_path / "node/jobs"
    dead, living = jobs / "dead", jobs / "living"
    for place in (dead, living):
        (place / "job").mkdir(parents=True)
        (place / "lock").touch()
    waiting = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        (living / "lock").open("w") as handle,
        subprocess.Popen(waiting, env={**os.environ, TOKEN_VARIABLE: str(dead / "job")}) as orphan,  # noqa: ASYNC220
    ):
        fcntl.flock(handle, fcntl.LOCK_EX)
        node = NodeWorker()
        node.start(parcel_for(tmp_path, artifact, "finish"))
        see_through(node)
        await eventually(lambda: not alive(orphan.pid))

    assert [place.name for place in jobs.iterdir()] == ["living"]


def test_the_worker_s_log_comes_home(tmp_path: Path, artifact: Artifact) -> None:
    node = NodeWorker()
    parcel = parcel_for(tmp_path, artifact, "chatter")
    node.start(replace(parcel, settings=parcel.settings | {"worker_log_bytes": 10_000}))
    log = see_through(node)[1].log

    assert 0 < len(log) <= 10_000
