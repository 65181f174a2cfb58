"""The client against a real server in another process, over a network that fails."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from itertools import dropwhile, islice, pairwise
from pathlib import Path

import pytest

from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.client import (
    AlreadyExistsError,
    Client,
    FailedPreconditionError,
    InvalidArgumentError,
    JobAdvanced,
    JobEvent,
    JobSnapshot,
    NotFoundError,
    ShoalError,
    UnavailableError,
    is_finished,
)
from service.client.upload import CHUNK, Outgoing, describe, send
from tests.service.flaky_proxy import FlakyProxy
from tests.service.server_process import ServerProcess, Told

Job = job_pb.OptimizationJob
MODEL = pb.ARTIFACT_KIND_MODEL
HALF = job_pb.Budget(fraction=0.5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), commit_bytes=CHUNK) as server:
        yield server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def file_of(folder: Path, size: int, name: str = "net.pt2") -> Path:
    path = folder / name
    path.write_bytes(os.urandom(size))
    return path


def source(client: Client, folder: Path) -> job_pb.ModelSource:
    return job_pb.ModelSource(pt2_artifact=client.upload(file_of(folder, 100), MODEL).name)


class Seen:
    """What a progress callback was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.calls.append((done, total))

    @property
    def starts(self) -> list[int]:
        """After how many chunks each attempt spoke first."""
        chunks = [done // CHUNK for done, _ in self.calls]
        return [chunks[0], *(after for before, after in pairwise(chunks) if after <= before)]


def test_an_uploaded_file_is_what_was_sent(client: Client, tmp_path: Path) -> None:
    path, seen = file_of(tmp_path, 3 * CHUNK + 5), Seen()
    artifact = client.upload(path, MODEL, seen)
    assert (artifact.filename, artifact.size_bytes, artifact.kind) == ("net.pt2", 3 * CHUNK + 5, MODEL)
    assert artifact.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert seen.calls[-1] == (path.stat().st_size, path.stat().st_size)
    assert client.download(artifact.name, tmp_path / "back").read_bytes() == path.read_bytes()


def test_the_same_bytes_are_sent_once(client: Client, tmp_path: Path) -> None:
    path, seen = file_of(tmp_path, 2 * CHUNK), Seen()
    first = client.upload(path, MODEL)
    assert client.upload(path, MODEL, seen) == first
    assert seen.calls == [(2 * CHUNK, 2 * CHUNK)]


def test_an_upload_goes_on_after_the_connection_broke(server: ServerProcess, tmp_path: Path) -> None:
    path, seen = file_of(tmp_path, 60 * CHUNK), Seen()
    with FlakyProxy(server.port, cut_after=(30 * CHUNK, 20 * CHUNK)) as proxy, Client(proxy.address) as client:
        artifact = client.upload(path, MODEL, seen)
    assert artifact.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert proxy.connections == 3
    later = [done for done, _ in dropwhile(lambda call: call[0] < 20 * CHUNK, seen.calls)]
    assert min(later) > 10 * CHUNK, "it does not start at the beginning again"


def test_a_damaged_chunk_is_sent_again(server: ServerProcess, tmp_path: Path) -> None:
    path, seen = file_of(tmp_path, 8 * CHUNK), Seen()
    with FlakyProxy(server.port, flip_at=3 * CHUNK + CHUNK // 2) as proxy, Client(proxy.address) as client:
        artifact = client.upload(path, MODEL, seen)
    assert artifact.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(seen.starts) == 2
    assert seen.starts[1] > 1, "it goes back to the damaged chunk, not to the beginning"


UPLOADER = """
import sys, time
from service.client import Client
def slow(done, total):
    print(done, flush=True)
    time.sleep(0.2)
with Client(sys.argv[1]) as client:
    client.upload(sys.argv[2], 1, slow)
"""


def test_a_killed_client_is_resumed_by_the_next_one(tmp_path: Path) -> None:
    path, seen = file_of(tmp_path, 12 * CHUNK), Seen()
    with ServerProcess(tmp_path / "state", commit_bytes=CHUNK) as server:
        command = [sys.executable, "-c", UPLOADER, server.address, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout is not None
            while int(first.stdout.readline()) < 5 * CHUNK:
                pass
            first.kill()
        with Client(server.address) as client:
            artifact = client.upload(path, MODEL, seen)
    assert artifact.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert seen.calls[0][0] > CHUNK, "the second client does not start at the beginning"


def test_an_upload_survives_a_killed_server(tmp_path: Path) -> None:
    path = file_of(tmp_path, 40 * CHUNK)
    with ServerProcess(tmp_path / "state", commit_bytes=CHUNK) as server:
        half = threading.Event()

        def seen(done: int, total: int) -> None:
            if done >= total // 2 and not half.is_set():
                half.set()
                server.end(signal.SIGKILL)
                threading.Thread(target=server.start).start()

        with Client(server.address) as client:
            artifact = client.upload(path, MODEL, seen)
            assert client.download(artifact.name, tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_refused_upload_names_the_field(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.upload(file_of(tmp_path, 10), pb.ARTIFACT_KIND_RESULT)
    assert caught.value.violations[0].field == "metadata.kind"


def test_a_file_that_vanishes_during_the_upload_is_an_os_error(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = file_of(folder, CHUNK)
    metadata = describe(path, MODEL, path.name)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        send(client._stub, Outgoing(path, metadata, Seen()), client.address, 10.0)


def test_a_file_that_is_not_there_is_an_os_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.upload(tmp_path / "nowhere", MODEL)


def test_a_download_goes_on_after_the_connection_broke(server: ServerProcess, client: Client, tmp_path: Path) -> None:
    path = file_of(tmp_path, 4 * CHUNK)
    artifact = client.upload(path, MODEL)
    with FlakyProxy(server.port) as proxy, Client(proxy.address) as flaky:

        def cut_once(done: int, total: int) -> None:
            if total // 2 <= done < total and proxy.connections == 1:
                proxy.cut()

        assert flaky.download(artifact.name, tmp_path / "back", cut_once).read_bytes() == path.read_bytes()
        assert proxy.connections == 2


def test_a_download_goes_on_in_a_later_process(client: Client, tmp_path: Path) -> None:
    path = file_of(tmp_path, 4 * CHUNK)
    artifact = client.upload(path, MODEL)
    part = tmp_path / f".back.{artifact.name.rpartition('/')[2]}.part"
    part.write_bytes(path.read_bytes()[: CHUNK + 7])
    seen = Seen()
    assert client.download(artifact.name, tmp_path / "back", seen).read_bytes() == path.read_bytes()
    assert seen.calls[0] == (CHUNK + 7, 4 * CHUNK)
    assert not part.exists()


@pytest.mark.parametrize("rubbish", [b"x" * CHUNK, b"x" * (9 * CHUNK)], ids=["shorter", "longer than the file"])
def test_a_part_of_something_else_is_thrown_away(client: Client, tmp_path: Path, rubbish: bytes) -> None:
    path = file_of(tmp_path, 4 * CHUNK)
    artifact = client.upload(path, MODEL)
    (tmp_path / f".back.{artifact.name.rpartition('/')[2]}.part").write_bytes(rubbish)
    assert client.download(artifact.name, tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_damaged_chunk_is_fetched_again(server: ServerProcess, client: Client, tmp_path: Path) -> None:
    path, seen = file_of(tmp_path, 4 * CHUNK), Seen()
    artifact = client.upload(path, MODEL)
    with FlakyProxy(server.port, flip_back_at=2 * CHUNK + CHUNK // 2) as proxy, Client(proxy.address) as flaky:
        assert flaky.download(artifact.name, tmp_path / "back", seen).read_bytes() == path.read_bytes()
    offsets = [done for done, _ in seen.calls]
    assert offsets.count(2 * CHUNK) > 1, "it asked again from the damaged chunk"
    assert offsets.count(CHUNK) == 1, "and not from the beginning"


def test_a_file_damaged_on_the_server_never_gets_its_name(tmp_path: Path) -> None:
    path = file_of(tmp_path, 4 * CHUNK)
    with ServerProcess(tmp_path / "state") as server, Client(server.address) as client:
        artifact = client.upload(path, MODEL)
        files = [each for each in (tmp_path / "state").rglob("*") if each.is_file()]
        (stored,) = [each for each in files if each.stat().st_size == 4 * CHUNK]
        with stored.open("r+b") as file:
            file.seek(CHUNK)
            file.write(b"damage")
        with pytest.raises(ShoalError, match=r"damaged|SHA-256"):
            client.download(artifact.name, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_download_replaces_what_was_there_and_makes_folders(client: Client, tmp_path: Path) -> None:
    path = file_of(tmp_path, 10)
    artifact = client.upload(path, MODEL)
    target = tmp_path / "a/b/back"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"old")
    assert client.download(artifact.name, target).read_bytes() == path.read_bytes()
    assert [each.name for each in target.parent.iterdir()] == ["back"]


def test_an_artifact_that_is_not_there(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        client.download("artifacts/nowhere", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_job_is_created_from_fields_and_seen_to_its_end(client: Client, tmp_path: Path) -> None:
    job = client.create(
        model=source(client, tmp_path), budget=HALF, seed=0, time_limit=timedelta(minutes=5), display_name="mine"
    )
    assert (job.spec.budget.fraction, job.spec.time_limit.seconds, job.display_name) == (0.5, 300, "mine")
    events = list(client.watch(job.name))
    first, last = events[0], events[-1]
    assert isinstance(first, JobSnapshot)
    assert isinstance(last, JobSnapshot)
    assert last.job.state == Job.STATE_SUCCEEDED
    assert last.job.result.outcome == job_pb.OptimizationResult.OUTCOME_BUDGET_MET
    assert [event.progress.phase for event in events if isinstance(event, JobAdvanced)] == ["load", "plan", "report"]
    assert client.get(job.name) == last.job


def test_a_spec_or_its_fields_but_not_both(client: Client) -> None:
    with pytest.raises(TypeError, match="got a spec and budget"):
        client.create(job_pb.OptimizationJobSpec(), budget=HALF)


def test_one_request_id_makes_one_job(client: Client, tmp_path: Path) -> None:
    spec = job_pb.OptimizationJobSpec(model=source(client, tmp_path), budget=HALF)
    request_id = "4b1f6e0c-7a30-4c3b-9d53-0d3f6f0f9b11"
    first = client.create(spec, request_id=request_id)
    assert client.create(spec, request_id=request_id).name == first.name
    spec.seed = 1
    with pytest.raises(AlreadyExistsError):
        client.create(spec, request_id=request_id)


def test_refused_fields_are_named(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.create(model=source(client, tmp_path), budget=job_pb.Budget(fraction=1.5))
    assert [each.field for each in caught.value.violations] == ["spec.budget.fraction"]
    assert caught.value.reason


def test_a_model_that_was_never_uploaded(client: Client) -> None:
    with pytest.raises((NotFoundError, FailedPreconditionError, InvalidArgumentError), match="artifacts/nowhere"):
        client.create(model=job_pb.ModelSource(pt2_artifact="artifacts/nowhere"), budget=HALF)


def test_a_job_that_is_not_there(client: Client) -> None:
    for call in (client.get, client.cancel, lambda name: next(client.watch(name))):
        with pytest.raises(NotFoundError, match="optimizationJobs/nowhere"):
            call("optimizationJobs/nowhere")


def test_jobs_are_listed_over_pages_newest_first(client: Client, tmp_path: Path) -> None:
    model = source(client, tmp_path)
    made = [client.create(model=model, budget=HALF).name for _ in range(5)]
    assert [job.name for job in islice(client.list(page_size=2), 5)] == made[::-1]


def test_a_cancelled_job_ends(client: Client, tmp_path: Path) -> None:
    job = client.create(model=source(client, tmp_path), budget=HALF, seed=Told.SLEEP)
    last: JobEvent | None = None
    for event in client.watch(job.name):
        if isinstance(event, JobAdvanced):
            client.cancel(job.name)
        last = event
    assert isinstance(last, JobSnapshot)
    assert last.job.state == Job.STATE_CANCELLED


def test_leaving_a_watch_leaves_the_job(client: Client, tmp_path: Path) -> None:
    job = client.create(model=source(client, tmp_path), budget=HALF, seed=Told.STEPS)
    seen = next(event.sequence for event in client.watch(job.name) if isinstance(event, JobAdvanced))
    rest = list(client.watch(job.name, resume_after=seen))
    sequences = [event.sequence for event in rest if isinstance(event, JobAdvanced)]
    assert sequences[0] > seen
    assert isinstance(rest[-1], JobSnapshot)
    assert rest[-1].job.state == Job.STATE_SUCCEEDED


def test_a_watch_goes_on_after_the_connection_broke_without_gaps(
    server: ServerProcess, client: Client, tmp_path: Path
) -> None:
    job = client.create(model=source(client, tmp_path), budget=HALF, seed=Told.STEPS)
    lost: list[ShoalError] = []
    sequences = []
    with FlakyProxy(server.port) as proxy, Client(proxy.address) as flaky:
        for event in flaky.watch(job.name, on_disconnect=lost.append):
            if isinstance(event, JobAdvanced):
                sequences.append(event.sequence)
                if len(sequences) in {3, 12}:
                    proxy.cut()
    assert len(lost) == 2
    assert sequences == [event.sequence for event in client.watch(job.name) if isinstance(event, JobAdvanced)]


def test_a_watch_that_goes_silent_is_opened_again(
    server: ServerProcess, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client.watch.SILENCE", 0.5)  # the server speaks every 0.2 seconds
    job = client.create(model=source(client, tmp_path), budget=HALF, seed=Told.STEPS)
    lost: list[ShoalError] = []
    sequences = []
    with FlakyProxy(server.port) as proxy, Client(proxy.address) as flaky:
        for event in flaky.watch(job.name, on_disconnect=lost.append):
            if isinstance(event, JobAdvanced):
                sequences.append(event.sequence)
                if len(sequences) == 3:
                    proxy.freeze(1.5)
    assert lost
    assert sequences == [event.sequence for event in client.watch(job.name) if isinstance(event, JobAdvanced)]


def test_a_watch_survives_a_stopped_and_a_killed_server_and_then_gives_up(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "state", max_attempts=5) as server, Client(server.address) as client:
        job = client.create(model=source(client, tmp_path), budget=HALF, seed=Told.LONG_STEPS)
        ends = {1: signal.SIGTERM, 2: signal.SIGKILL}
        for event in client.watch(job.name):
            if isinstance(event, JobSnapshot):
                job = event.job
            elif number := ends.pop(job.attempts, None):
                server.end(number)
                threading.Thread(target=server.start).start()
        assert (job.state, job.attempts) == (Job.STATE_SUCCEEDED, 3)

        server.end(signal.SIGKILL)
        with pytest.raises(UnavailableError, match="no Shoal server answers"):
            list(client.watch(job.name, patience=0.5))


def test_watching_a_finished_job_tells_the_whole_story(client: Client, tmp_path: Path) -> None:
    job = client.create(model=source(client, tmp_path), budget=HALF)
    first, again = list(client.watch(job.name)), list(client.watch(job.name))
    assert [event.sequence for event in again if isinstance(event, JobAdvanced)] == [
        event.sequence for event in first if isinstance(event, JobAdvanced)
    ]
    end = again[-1]
    assert isinstance(end, JobSnapshot)
    (last,) = client.watch(job.name, resume_after=end.sequence)
    assert isinstance(last, JobSnapshot)
    assert last.job == end.job


def test_nobody_at_the_address() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(UnavailableError, match=r"no Shoal server.*127\.0\.0\.1:1"):
        client.get("optimizationJobs/any")


def test_a_short_call_is_repeated_while_the_server_is_away_for_a_moment(server: ServerProcess) -> None:
    with FlakyProxy(server.port, refuse=2) as proxy, Client(proxy.address) as client:
        with pytest.raises(NotFoundError):
            client.get("optimizationJobs/nowhere")
        assert proxy.connections == 3


def test_strategies_have_options(client: Client) -> None:
    found = client.strategies()
    assert "layerfit" in [each.name for each in found]
    assert all(each.summary for each in found)
    assert all("properties" in each.options_schema for each in found)


def test_an_analysis_says_what_may_go(client: Client, tmp_path: Path) -> None:
    found = client.analyze(source(client, tmp_path), skip_floor=True)
    assert found.segments[0].candidates == ["remove"]
    assert not found.HasField("floor")
    assert client.analyze(source(client, tmp_path)).floor.floor_ms == 0.5


def test_the_client_needs_no_torch() -> None:
    program = "import sys, service.client; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_final_states() -> None:
    final = [state for state in Job.State.values() if is_finished(Job(state=state))]
    assert final == [Job.STATE_SUCCEEDED, Job.STATE_FAILED, Job.STATE_CANCELLED, Job.STATE_EXPIRED]
