"""Bytes that nobody names are taken away, whoever died before naming them; what is named stays."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from crc32c import crc32c
from sqlalchemy import delete, update

from service.database.clock import now
from service.database.database import Database
from service.database.tables import DeviceWorkRow, UploadRow
from service.devices.files import WorkFiles
from service.errors import UploadIncompleteError
from service.jobs.job import NewJob
from service.jobs.removal import Removal
from service.jobs.states import State
from service.jobs.store import Ending, JobStore
from service.spec import Budget, JobSpec, ModelSource
from service.storage.artifacts import Artifact, ArtifactKind, ArtifactStore
from service.storage.collect import Collector, Freed
from service.uploads.announcement import Announcement
from service.uploads.uploads import OpenUpload, Uploads
from tests.service.server_harness import settings_for

DATA = b"the bytes of a model"
DIGEST = hashlib.sha256(DATA).hexdigest()


class Shop:
    """A store, its database, and all that works on them."""

    def __init__(self, folder: Path, url: str | None = None, grace: float = 0.0) -> None:
        self.settings = settings_for(folder, storage_url=url)
        self.settings.state_dir.mkdir(exist_ok=True)
        self.database = Database(self.settings.database)
        self.artifacts = ArtifactStore(self.database, self.settings.storage)
        self.uploads = Uploads(self.database, self.artifacts, self.settings)
        self.jobs = JobStore(self.database)
        self.removal = Removal(self.database, folder / "jobs")
        self.collector = Collector(self.database, self.artifacts.storage, grace)
        self.scratch = folder

    def begin(self, upload_id: str = "upload-0001", data: bytes = DATA) -> Artifact | OpenUpload:
        digest = hashlib.sha256(data).hexdigest()
        return self.uploads.begin(Announcement(upload_id, ArtifactKind.MODEL, "net.pt2", len(data), digest))

    def send(self, upload_id: str = "upload-0001", data: bytes = DATA) -> Artifact:
        try:
            return self._send(upload_id, data)
        except UploadIncompleteError:
            return self._send(upload_id, data)  # as a client does, which is told that bytes were lost

    def _send(self, upload_id: str, data: bytes) -> Artifact:
        begun = self.begin(upload_id, data)
        if isinstance(begun, Artifact):
            return begun
        with begun:
            if begun.size < len(data):
                begun.append(begun.size, data[begun.size :], crc32c(data[begun.size :]))
            return begun.finish()

    def put(self, data: bytes = DATA) -> None:
        path = self.scratch / "loose"
        path.write_bytes(data)
        self.artifacts.keep(path, hashlib.sha256(data).hexdigest())

    def start_job(self) -> str:
        spec = JobSpec(model=ModelSource(named={"architecture": "timm:resnet18"}), budget=Budget(fraction=0.5))
        self.jobs.create(NewJob(spec), queue_limit=10)
        job = self.jobs.claim()
        assert job is not None
        return job.id

    def holds(self, data: bytes = DATA) -> bool:
        return self.artifacts.holds(hashlib.sha256(data).hexdigest(), len(data))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    shop.database.close()


def test_what_is_named_stays(shop: Shop) -> None:
    shop.send()
    assert shop.collector.collect() == Freed()
    assert shop.holds()


def test_the_bytes_of_a_removed_file_go(shop: Shop) -> None:
    artifact = shop.send()
    shop.removal.remove_artifact(artifact.id)
    assert shop.collector.collect() == Freed(1, len(DATA))
    assert not shop.holds()
    assert shop.collector.collect() == Freed()


def test_bytes_that_another_file_shares_stay(shop: Shop) -> None:
    first = shop.send()
    announced = Announcement("upload-0002", ArtifactKind.MODEL, "net.pt2", len(DATA), DIGEST, "alice")
    begun = shop.uploads.begin(announced)
    assert isinstance(begun, OpenUpload)
    with begun:
        begun.append(0, DATA, crc32c(DATA))
        begun.finish()
    shop.removal.remove_artifact(first.id)
    assert shop.collector.collect() == Freed()
    assert shop.holds()


def test_bytes_that_nobody_recorded_go_after_their_grace(tmp_path: Path) -> None:
    shop = Shop(tmp_path, grace=3600)
    shop.put()
    assert shop.collector.collect() == Freed()
    blob = tmp_path / "state/artifacts" / DIGEST[:2] / DIGEST
    os.utime(blob, (time.time() - 3601, time.time() - 3601))
    assert shop.collector.collect() == Freed(1, len(DATA))
    shop.database.close()


def test_what_an_unfinished_upload_announced_stays(shop: Shop) -> None:
    """As an upload leaves it that was killed between storing and recording."""
    begun = shop.begin()
    assert isinstance(begun, OpenUpload)
    with begun:
        shop.put()
        assert shop.collector.collect() == Freed()
        with shop.database.write() as session:
            session.execute(delete(UploadRow))  # nobody came back
        assert shop.collector.collect() == Freed(1, len(DATA))


def test_what_a_job_under_way_holds_stays_until_it_is_recorded(shop: Shop) -> None:
    job_id = shop.start_job()
    shop.jobs.hold(job_id, [DIGEST, DIGEST])
    shop.jobs.hold(job_id, [DIGEST])  # tried again
    shop.put()
    assert shop.collector.collect() == Freed()
    artifact = Artifact("made-by-job", ArtifactKind.RESULT, "model.onnx", len(DATA), DIGEST, now())
    shop.jobs.finish(job_id, Ending(State.SUCCEEDED, result={"artifacts": []}, artifacts=[artifact]))
    assert shop.collector.collect() == Freed()
    assert shop.holds()


def test_what_a_job_held_that_did_not_get_so_far_goes(shop: Shop) -> None:
    job_id = shop.start_job()
    shop.jobs.hold(job_id, [DIGEST])
    shop.put()
    shop.jobs.requeue(job_id)
    assert shop.collector.collect() == Freed(1, len(DATA))


def test_halves_of_files_and_probes_go_after_a_day_and_other_files_never(shop: Shop) -> None:
    folder = shop.settings.state_dir / "artifacts" / "ab"
    folder.mkdir()
    left = [folder / f"{'ab' * 32}.01234567.partial", folder.parent / ".ready-01234567"]
    others = [folder / "notes.txt", folder.parent / "checkpoints", folder.parent / "other"]
    for path in (*left, *others):
        path.write_bytes(b"abc")
    assert shop.collector.collect() == Freed()
    for path in (*left, *others):
        os.utime(path, (0, 0))
    assert shop.collector.collect() == Freed(2, 6)
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_files_of_device_work_that_is_no_more_go(shop: Shop) -> None:
    files = WorkFiles(shop.settings.storage)
    path = shop.scratch / "question"
    path.write_bytes(b"abc")
    for work_id in ("known", "forgotten"):
        files.put(work_id, "in", 0, path)
    with shop.database.write() as session:
        facts = {"state": "WAITING", "kind": "measure", "request": {}, "files": [], "create_time": now()}
        session.add(DeviceWorkRow(id="known", job_id="x", agent="a", **facts))
    assert shop.collector.collect() == Freed(1, 3)
    with files.open("known", "in", 0) as stream:
        assert stream.read() == b"abc"


def test_any_store_that_fsspec_opens_is_collected(tmp_path: Path) -> None:
    shop = Shop(tmp_path, url=f"memory://{tmp_path.name}")
    kept, gone = shop.send(), shop.send("upload-0002", b"something else")
    shop.removal.remove_artifact(gone.id)
    assert shop.collector.collect() == Freed(1, gone.size_bytes)
    with shop.artifacts.open(kept) as stream:
        assert stream.read() == DATA
    shop.database.close()


def test_uploads_of_what_is_being_collected_never_lose_it(shop: Shop) -> None:
    """The same bytes are sent, removed and collected again and again, at the same time."""
    end = time.monotonic() + 1.0
    lost: list[Artifact] = []

    def collect() -> None:
        while time.monotonic() < end:
            shop.collector.collect()

    thread = threading.Thread(target=collect)
    thread.start()
    while time.monotonic() < end:
        artifact = shop.send()
        if not shop.holds():
            lost.append(artifact)
        shop.removal.remove_artifact(artifact.id)
    thread.join()
    assert not lost


def test_checkpoints_stay_for_as_long_as_their_job_may_go_on(shop: Shop) -> None:
    spec = JobSpec(model=ModelSource(pt2_artifact="artifacts/none"), budget=Budget(fraction=0.5))
    job_id = shop.jobs.create(NewJob(spec), queue_limit=1).id
    storage = shop.artifacts.storage
    for name in (job_id, "job-that-was-removed"):
        storage.put(f"checkpoints/{name}/index.json", b"{}")
        storage.put(f"checkpoints/{name}/parts/one", b"measured")
    first = shop.collector.collect()
    shop.jobs.request_cancel(job_id)
    second = shop.collector.collect()

    assert first == second == Freed(2, 10)
    assert not storage.entries("checkpoints", deep=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from service.uploads.uploads import OpenUpload
from tests.service.storage.test_collect import Shop

where = sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

shop = Shop(Path(sys.argv[1]))
if where == "stored":
    OpenUpload._record = die
if where == "removed":
    artifact = shop.send()
    shop.removal.remove_artifact(artifact.id)
    shop.artifacts.storage.remove = die
    shop.collector.collect()
shop.send()
"""


@pytest.mark.parametrize("where", ["stored", "removed"])
def test_after_a_kill_the_next_server_sorts_it_out(tmp_path: Path, where: str) -> None:
    program = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), where], check=False, capture_output=True)
    assert program.returncode == -signal.SIGKILL, program.stderr
    shop = Shop(tmp_path)
    assert shop.holds()
    if where == "stored":
        assert shop.collector.collect() == Freed()  # whoever sent it may come back, and does
        assert shop.send().sha256 == DIGEST
        with shop.database.write() as session:
            session.execute(update(UploadRow).values(update_time=now() - timedelta(days=30)))
        shop.uploads.forget_old()
        assert shop.collector.collect() == Freed()
    else:
        assert shop.collector.collect() == Freed(1, len(DATA))
    shop.database.close()
