from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, text

from service.database.database import Database
from service.errors import (
    AlreadyExistsError,
    DatabaseBusyError,
    DiskFullError,
    IllegalTransitionError,
    NotFoundError,
    QuotaError,
)
from service.jobs.job import Failure, Job, NewJob, Progress
from service.jobs.states import FINAL, TRANSITIONS, State
from service.jobs.store import Ending, JobStore
from service.spec import JobSpec
from service.storage.artifacts import ArtifactKind, ArtifactStore, new_artifact

SPEC = JobSpec.model_validate({"model": {"pt2_artifact": "artifacts/some"}, "budget": {"fraction": 0.5}})
FAILED = Ending(State.FAILED, failure=Failure(reason="BAD_MODEL", message="no", blame="caller"))
PROGRESS = Progress(phase="tune", fraction=0.5, message="half", metrics={"loss": 0.1}, time_left=timedelta(seconds=9))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


def queued(store: JobStore) -> Job:
    return store.create(NewJob(SPEC), queue_limit=100)


def run(store: JobStore) -> Job:
    queued(store)
    job = store.claim()
    assert job is not None
    return job


def cancelling(store: JobStore) -> Job:
    return store.request_cancel(run(store).id)


def ended(state: State) -> Callable[[JobStore], Job]:
    return lambda store: store.finish(run(store).id, Ending(state))


REACH: dict[State, Callable[[JobStore], Job]] = {
    State.QUEUED: queued,
    State.RUNNING: run,
    State.CANCELLING: cancelling,
    State.SUCCEEDED: ended(State.SUCCEEDED),
    State.FAILED: ended(State.FAILED),
    State.EXPIRED: ended(State.EXPIRED),
    State.CANCELLED: lambda store: store.request_cancel(queued(store).id),
}


def test_the_table_covers_every_state_and_ends() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED} == FINAL
    reachable, frontier = {State.QUEUED}, {State.QUEUED}
    while frontier:
        frontier = set(itertools.chain.from_iterable(TRANSITIONS[state] for state in frontier)) - reachable
        reachable |= frontier
    assert reachable == set(State)


@pytest.mark.parametrize("start", list(State))
@pytest.mark.parametrize("to", [State.SUCCEEDED, State.FAILED, State.EXPIRED])
def test_only_what_runs_can_end(store: JobStore, start: State, to: State) -> None:
    job = REACH[start](store)
    if start is State.RUNNING:
        assert store.finish(job.id, Ending(to)).state is to
    elif start is State.CANCELLING:
        assert store.finish(job.id, Ending(to)).state is State.CANCELLED
    else:
        with pytest.raises(IllegalTransitionError, match=f"is {start} and cannot become {to}"):
            store.finish(job.id, Ending(to))
        assert store.get(job.id) == job


@pytest.mark.parametrize("start", list(State))
def test_cancelling_leaves_what_is_over_alone(store: JobStore, start: State) -> None:
    expected = {State.QUEUED: State.CANCELLED, State.RUNNING: State.CANCELLING}.get(start, start)
    job = REACH[start](store)
    after = store.request_cancel(job.id)

    assert after.state is expected
    assert (after == job) is (expected is start)


@pytest.mark.parametrize("start", list(State))
def test_only_what_runs_goes_back_to_the_queue(store: JobStore, start: State) -> None:
    job = REACH[start](store)
    if start in {State.RUNNING, State.CANCELLING}:
        expected = State.QUEUED if start is State.RUNNING else State.CANCELLED
        assert store.requeue(job.id).state is expected
    else:
        with pytest.raises(IllegalTransitionError):
            store.requeue(job.id)


@pytest.mark.parametrize("start", list(State))
def test_recovery_touches_only_what_a_worker_was_at(store: JobStore, start: State) -> None:
    expected = {State.RUNNING: State.QUEUED, State.CANCELLING: State.CANCELLED}.get(start, start)
    job = REACH[start](store)
    recovered = store.recover(max_attempts=2)

    assert store.get(job.id).state is expected
    assert [item.id for item in recovered] == ([job.id] if expected is not start else [])


def test_recovery_gives_up_in_the_end(store: JobStore) -> None:
    job = run(store)
    for _ in range(2):
        store.recover(max_attempts=3)
        assert store.claim() is not None
    store.recover(max_attempts=3)

    lost = store.get(job.id)
    assert lost.state is State.FAILED
    assert lost.failure is not None
    assert lost.failure.reason == "WORKER_LOST"
    assert lost.attempts == 3


def test_every_change_is_an_event_with_the_next_number(store: JobStore) -> None:
    job = run(store)
    store.record_progress(job.id, PROGRESS)
    last = store.finish(job.id, FAILED)
    events = store.events(job.id, 0, 100)

    assert [item.sequence for item in events] == [1, 2, 3, 4]
    assert [item.body.state if isinstance(item.body, Job) else item.body for item in events] == [
        State.QUEUED, State.RUNNING, PROGRESS, State.FAILED,
    ]  # fmt: skip
    assert events[-1].body == last == store.get(job.id)
    assert [item.last for item in events] == [False, False, False, True]
    assert [item.sequence for item in store.events(job.id, 1, 2)] == [2, 3]


@pytest.mark.parametrize("start", [state for state in State if state is not State.RUNNING])
def test_progress_that_comes_too_late_is_dropped(store: JobStore, start: State) -> None:
    job = REACH[start](store)
    store.record_progress(job.id, PROGRESS)

    assert store.get(job.id) == job


def test_a_job_that_starts_again_has_no_old_progress(store: JobStore) -> None:
    job = run(store)
    store.record_progress(job.id, PROGRESS)
    store.requeue(job.id)
    again = store.claim()

    assert again is not None
    assert (again.progress, again.attempts, again.start_time) == (None, 2, job.start_time)


def test_the_oldest_job_is_claimed_first(store: JobStore) -> None:
    first, second = queued(store), queued(store)

    assert [job.id for job in (store.claim(), store.claim()) if job] == [first.id, second.id]
    assert store.claim() is None


def test_no_job_is_claimed_twice(store: JobStore) -> None:
    jobs = {queued(store).id for _ in range(20)}
    claimed: list[str] = []

    def claim() -> None:
        while job := store.claim():
            claimed.append(job.id)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed) == sorted(jobs)


def test_a_result_and_its_files_are_recorded_together(store: JobStore, database: Database, tmp_path: Path) -> None:
    artifacts = ArtifactStore(database, f"file://{tmp_path / 'files'}")
    file = new_artifact(ArtifactKind.RESULT, "model.onnx", 3, "0" * 64)
    with pytest.raises(IllegalTransitionError):
        store.finish(queued(store).id, Ending(State.SUCCEEDED, artifacts=[file]))
    with pytest.raises(NotFoundError):
        artifacts.get(file.id)
    job = store.claim()
    assert job is not None
    store.finish(job.id, Ending(State.SUCCEEDED, result={"speedup": 2.0}, artifacts=[file]))

    assert artifacts.get(file.id) == file
    assert store.get(job.id).result == {"speedup": 2.0}


def test_listeners_hear_of_committed_changes_only(database: Database) -> None:
    heard: list[str] = []
    store = JobStore(database, heard.append)
    job = run(store)
    store.record_progress(job.id, PROGRESS)
    store.finish(job.id, FAILED)
    with pytest.raises(IllegalTransitionError):
        store.finish(job.id, FAILED)
    store.record_progress(job.id, PROGRESS)

    assert heard == [job.id] * 4


def test_a_request_id_stands_for_one_body(store: JobStore) -> None:
    request = NewJob(SPEC, "mine", request_id=str(uuid.uuid4()))
    first = store.create(request, 100)

    assert store.create(request, queue_limit=0) == first
    with pytest.raises(AlreadyExistsError, match="from another request"):
        store.create(NewJob(SPEC, "other", request_id=request.request_id), 100)


def test_a_full_queue_takes_nothing(store: JobStore) -> None:
    queued(store)
    with pytest.raises(QuotaError, match="1 jobs wait already"):
        store.create(NewJob(SPEC), queue_limit=1)


def test_an_unknown_job_is_not_found(store: JobStore) -> None:
    for call in (store.get, store.request_cancel, store.requeue):
        with pytest.raises(NotFoundError, match="there is no job 'optimizationJobs/nobody'"):
            call("nobody")


def test_a_full_disk_is_told_from_other_troubles_and_breaks_nothing(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'small.db'}")

    @event.listens_for(database._engine, "checkout")
    def limit(connection: object, *_: object) -> None:
        connection.execute("PRAGMA max_page_count=40")  # type: ignore[attr-defined]

    store = JobStore(database)
    created: list[Job] = []

    def fill() -> None:
        while len(created) < 1000:
            created.append(store.create(NewJob(SPEC, "x" * 200), queue_limit=1000))

    with pytest.raises(DiskFullError, match="the disk that holds the database is full"):
        fill()
    assert created
    assert [job for _, job in store.newest(1000)] == created[::-1]


def test_a_database_that_stays_locked_is_busy(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'shoal.db'}")

    @event.listens_for(database._engine, "checkout")
    def impatient(connection: object, *_: object) -> None:
        connection.execute("PRAGMA busy_timeout=10")  # type: ignore[attr-defined]

    with database.write() as holder:
        holder.execute(text("update jobs set state = state"))
        with pytest.raises(DatabaseBusyError, match="the database was locked"), database.write() as other:
            other.execute(text("update jobs set state = state"))
    with database.write() as session:
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"


def test_readers_do_not_wait_for_a_writer(store: JobStore, database: Database) -> None:
    job = queued(store)
    with database.write() as session:
        session.execute(text("update jobs set display_name = 'half written'"))
        assert store.get(job.id) == job


def taken(store: JobStore) -> str:
    job = store.claim()
    assert job is not None
    return job.principal


def test_principals_take_turns(store: JobStore) -> None:
    for principal in ("alice", "alice", "alice", "bob", "bob", "carol"):
        store.create(NewJob(SPEC, principal=principal), 100)

    assert [taken(store) for _ in range(6)] == ["alice", "bob", "carol", "alice", "bob", "alice"]


def test_who_comes_late_does_not_wait_for_all_who_came_first(store: JobStore) -> None:
    for _ in range(5):
        store.create(NewJob(SPEC, principal="alice"), 100)
    assert [taken(store) for _ in range(2)] == ["alice", "alice"]
    store.create(NewJob(SPEC, principal="bob"), 100)

    assert [taken(store) for _ in range(2)] == ["bob", "alice"]


def test_a_turn_that_was_missed_is_not_saved_up(store: JobStore) -> None:
    store.create(NewJob(SPEC, principal="bob"), 100)
    assert taken(store) == "bob"
    for _ in range(3):
        store.create(NewJob(SPEC, principal="alice"), 100)
        assert taken(store) == "alice"
    for principal in ("alice", "bob", "bob"):
        store.create(NewJob(SPEC, principal=principal), 100)

    assert [taken(store) for _ in range(3)] == ["bob", "alice", "bob"]


def test_within_a_principal_the_oldest_is_first(store: JobStore) -> None:
    made = [store.create(NewJob(SPEC, principal="alice"), 100).id for _ in range(4)]
    claimed = [store.claim() for _ in range(4)]
    assert [job.id for job in claimed if job is not None] == made


def test_the_order_is_kept_by_the_database(database: Database) -> None:
    for principal in ("alice", "alice", "bob"):
        JobStore(database).create(NewJob(SPEC, principal=principal), 100)
    assert [taken(JobStore(database)) for _ in range(3)] == ["alice", "bob", "alice"]
