"""A disk that is really full: a small file system under a server that runs, filled up and emptied again."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from protos.shoal.v1.model_optimizer_pb2_grpc import ModelOptimizerStub
from service.faults import DISK_FULL, classify
from service.jobs.job import Failure
from service.resuming.journal import Journal, read_journal
from service.storage.disk import is_scarce
from service.storage.storage import Storage
from service.supervision.setbacks import blamed_on_disk, is_setback, make_room
from service.worker.log import BoundedLog
from tests.service.server_harness import (
    finished,
    job_request,
    reached,
    refusal,
    running,
    settings_for,
    start_job,
    upload,
    worker_command,
)

SIZE = 12 << 20
RESERVE = 1 << 20
QUEUED, SUCCEEDED = job_pb.OptimizationJob.STATE_QUEUED, job_pb.OptimizationJob.STATE_SUCCEEDED


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 12 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"cannot mount a small file system here: {made.stderr.strip() or 'not root'}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


class Filling:
    """Takes all the room that is left, and gives it back."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ballast"

    def __enter__(self) -> None:
        with self._path.open("wb", buffering=0) as ballast:
            for block in (1 << 16, 1):
                try:
                    while True:
                        ballast.write(b"\0" * block)
                except OSError as exc:
                    assert exc.errno == errno.ENOSPC  # noqa: PT017 (each block size ends so)

    def __exit__(self, *_: object) -> None:
        self._path.unlink()


def test_a_probe_that_finds_no_room_leaves_nothing(small: Path) -> None:
    storage = Storage(f"file://{small}")
    with Filling(small), pytest.raises(OSError, match="No space left on device"):
        storage.probe()
    assert [entry.name for entry in storage.entries("")] == [".shoal"]


async def test_what_needs_room_is_refused_and_works_again(small: Path) -> None:
    async with running(settings_for(small)) as stub:
        request = await job_request(stub)
        with Filling(small):
            refused = [
                await refusal(upload(stub, b"x" * 50_000)),
                await refusal(many(stub, request)),
            ]
        assert (await upload(stub, b"x" * 50_000)).size_bytes == 50_000
        job = await finished(stub, (await stub.CreateOptimizationJob(request)).name)

    assert {(each.code, each.info.reason) for each in refused} == {(grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")}
    assert job.state == SUCCEEDED


async def many(stub: ModelOptimizerStub, request: object) -> None:
    """Creates jobs until the database has no room for another: some fit into what it has."""
    for _ in range(2000):
        await stub.CreateOptimizationJob(request)


async def test_a_job_whose_worker_finds_the_disk_full_goes_on_later(small: Path) -> None:
    flag = small.parent / "go on"
    settings = settings_for(small, worker_command=worker_command("waits", str(flag)), min_free_bytes=RESERVE)
    async with running(settings) as stub:
        job = await start_job(stub)
        await reached(stub, job.name, lambda job: job.progress.phase == "plan")
        with Filling(small):
            flag.touch()
            await asyncio.sleep(1.5)
            assert not (settings.state_dir / job.name.replace("optimizationJobs", "jobs") / "out/report.html").exists()
        job = await finished(stub, job.name)

    assert (job.state, job.attempts) == (SUCCEEDED, 2)


async def test_a_result_waits_for_room_to_be_stored(small: Path) -> None:
    flag = small.parent / "go on"
    settings = settings_for(small, worker_command=worker_command("waits", str(flag), "early"), min_free_bytes=RESERVE)
    async with running(settings) as stub:
        job = await start_job(stub)
        await reached(stub, job.name, lambda job: job.progress.phase == "plan")
        with Filling(small):
            flag.touch()
            await asyncio.sleep(1.5)
        job = await finished(stub, job.name)

    assert (job.state, job.attempts) == (SUCCEEDED, 1)


async def test_queued_jobs_wait_for_room(small: Path) -> None:
    async with running(settings_for(small, min_free_bytes=RESERVE)) as stub:
        request = await job_request(stub)
        ballast = small / "ballast"
        free = os.statvfs(small)
        ballast.write_bytes(b"\0" * (free.f_bavail * free.f_frsize - RESERVE // 2))
        await asyncio.sleep(1.2)  # no longer waiting for a job: looking for room
        job = await stub.CreateOptimizationJob(request)
        await asyncio.sleep(0.5)
        waiting = await reached(stub, job.name, lambda _job: True)
        ballast.unlink()
        done = await finished(stub, job.name)

    assert (waiting.state, done.state, done.attempts) == (QUEUED, SUCCEEDED, 1)


def test_a_journal_keeps_what_it_could_not_write_for_later(small: Path) -> None:
    journal = Journal(small, "me")
    journal.keep("before", 1)
    with Filling(small):
        journal.keep("during", "x" * 10_000)
        journal.keep("as well", 3)
        assert dict(read_journal(small).values) == {"before": 1}
    journal.keep("after", 4)

    assert dict(read_journal(small).values) == {"before": 1, "during": "x" * 10_000, "as well": 3, "after": 4}
    assert read_journal(small).size == (small / "journal.jsonl").stat().st_size


def test_a_log_that_cannot_be_written_is_read_all_the_same(small: Path) -> None:
    for number in range(10_000):  # until not even an empty file can be made
        try:
            (small / f"empty-{number}").touch()
        except OSError:
            break
    with Filling(small), BoundedLog(small / "log", 1 << 20) as log:
        log.write(b"some line\n" * 1000)


def test_a_full_disk_is_known_by_its_cause_and_in_words() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = ValueError("cannot export")
    wrapped.__cause__ = full
    told = RuntimeError("[enforce fail at inline_container.cc] . No space left on device")

    assert {classify(error) for error in (full, wrapped, told)} == {DISK_FULL}


def test_what_fails_on_a_full_disk_is_blamed_on_it_unless_the_caller_is_to_blame(small: Path) -> None:
    died = Failure(reason="WORKER_DIED", message="the worker was killed by SIGBUS", blame="machine")
    bad = Failure(reason="BAD_MODEL", message="no model", blame="caller")
    assert blamed_on_disk(died, scarce=is_scarce(small)) == died
    with Filling(small):
        found = blamed_on_disk(died, scarce=is_scarce(small))
        assert blamed_on_disk(bad, scarce=is_scarce(small)) == bad

    assert (found.reason, found.blame) == ("DISK_FULL", "machine")
    assert "the worker was killed by SIGBUS" in found.message


def test_a_job_does_not_wait_for_its_own_files_to_go(small: Path) -> None:
    folder = small / "job"
    for name, size in (("tmp", 4 << 20), ("fits/a", 4 << 20)):
        (folder / name).mkdir(parents=True)
        (folder / name / "weights.pt").write_bytes(b"\0" * size)
    (folder / "journal.jsonl").write_text("measured")
    make_room(folder, settings_for(small, min_free_bytes=6 << 20))
    assert [path.name for path in sorted(folder.iterdir())] == ["fits", "journal.jsonl"]
    make_room(folder, settings_for(small, min_free_bytes=20 << 20))  # others' files are in the way
    assert [path.name for path in sorted(folder.iterdir())] == ["fits", "journal.jsonl"]
    make_room(folder, settings_for(small, min_free_bytes=10 << 20))
    assert [path.name for path in folder.iterdir()] == ["journal.jsonl"]


@pytest.mark.parametrize(
    ("reason", "got_further", "setback"),
    [("DISK_FULL", False, True), ("WORKER_DIED", True, True), ("WORKER_DIED", False, False), ("INTERNAL", True, False)],
)
def test_only_a_full_disk_and_a_death_after_some_work_are_setbacks(
    reason: str, got_further: bool, setback: bool
) -> None:
    failure = Failure(reason=reason, message="it", blame="machine")
    assert is_setback(failure, got_further=got_further) is setback
