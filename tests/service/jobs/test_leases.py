from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.database.database import Database
from service.errors import LeaseLostError, QuotaError
from service.jobs.job import Job, NewJob, Progress
from service.jobs.leases import Holder, Renewal, runner_of
from service.jobs.states import State
from service.jobs.store import Ending, JobStore
from service.spec import JobSpec

SPEC = JobSpec.model_validate({"model": {"pt2_artifact": "artifacts/some"}, "budget": {"fraction": 0.5}})
PROGRESS = Progress(phase="tune", fraction=0.5)
OVER = -1.0
"""Seconds of a lease that is over as soon as it is given."""


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


def server(database: Database, name: str, seconds: float = 60.0) -> JobStore:
    return JobStore(database, holder=Holder(name, seconds))


def run(store: JobStore) -> Job:
    store.create(NewJob(SPEC), 100)
    return claim(store)


def claim(store: JobStore) -> Job:
    job = store.claim()
    assert job is not None
    return job


def take_over(database: Database) -> tuple[JobStore, JobStore, Job]:
    """A server whose lease ran out, the one that has its job now, and the job."""
    slow, quick = server(database, "slow", OVER), server(database, "quick")
    job = run(slow)
    assert [item.state for item in quick.recover(5, starting=False)] == [State.QUEUED]
    claim(quick)
    return slow, quick, job


def test_losses_and_setbacks_are_counted_over_all_servers(database: Database) -> None:
    first, second = server(database, "first"), server(database, "second")
    job = run(first)
    assert first.count_against(job.id, "setbacks", 1) == 1
    first.requeue(job.id, 1)
    claim(second)
    assert [second.count_against(job.id, "setbacks", 2), second.count_against(job.id, "losses", 2)] == [2, 1]
    second.requeue(job.id, 2)
    claim(first)
    assert first.count_against(job.id, "losses", 3) == 2


def test_lost_machines_and_dead_servers_are_counted_together(database: Database) -> None:
    slow, quick = server(database, "slow", OVER), server(database, "quick")
    job = run(slow)
    assert slow.count_against(job.id, "losses", 1) == 1
    (found,) = quick.recover(2, starting=False)
    assert (found.state, found.failure and found.failure.reason) == (State.FAILED, "WORKER_LOST")


WRITES: list[Callable[[JobStore, Job], object]] = [
    lambda store, job: store.finish(job.id, Ending(State.SUCCEEDED), job.attempts),
    lambda store, job: store.requeue(job.id, job.attempts),
    lambda store, job: store.count_against(job.id, "setbacks", job.attempts),
]


@pytest.mark.parametrize("write", WRITES)
def test_who_lost_a_job_writes_nothing_of_it(database: Database, write: Callable[[JobStore, Job], object]) -> None:
    slow, quick, job = take_over(database)
    before = quick.get(job.id)
    with pytest.raises(LeaseLostError, match=r"attempt 1 at job .* attempt 2 is with quick"):
        write(slow, job)
    slow.record_progress(job.id, PROGRESS, job.attempts)

    assert quick.get(job.id) == before
    assert quick.finish(job.id, Ending(State.SUCCEEDED), 2).state is State.SUCCEEDED
    with pytest.raises(LeaseLostError, match="attempt 2 is over"):
        write(slow, job)


def test_an_older_attempt_of_the_same_server_has_lost_the_job_too(database: Database) -> None:
    store = server(database, "one", OVER)
    old = run(store)
    store.recover(5, starting=False)
    new = claim(store)
    store.record_progress(old.id, PROGRESS, old.attempts)
    with pytest.raises(LeaseLostError):
        store.finish(old.id, Ending(State.SUCCEEDED), old.attempts)

    assert store.get(new.id).progress is None
    assert store.renew({old.id: old.attempts}) == Renewal(frozenset({old.id}), frozenset())
    assert store.renew({new.id: new.attempts}) == Renewal(frozenset(), frozenset())


def test_a_lease_that_is_renewed_holds(database: Database) -> None:
    first = server(database, "first", OVER)
    job = run(first)
    assert server(database, "first").renew({job.id: 1}).lost == frozenset()

    assert server(database, "second").recover(5, starting=False) == []


def test_a_late_renewal_counts_while_nobody_else_took_the_job(database: Database) -> None:
    store = server(database, "one", OVER)
    job = run(store)
    assert store.renew({job.id: 1}) == Renewal(frozenset(), frozenset())
    assert store.finish(job.id, Ending(State.SUCCEEDED), 1).state is State.SUCCEEDED


def test_a_server_learns_with_its_leases_what_others_did(database: Database) -> None:
    here, there = server(database, "here"), server(database, "there")
    kept, stopped, over = (run(here) for _ in range(3))
    there.request_cancel(stopped.id)
    here.finish(over.id, Ending(State.SUCCEEDED), 1)
    held = {job.id: job.attempts for job in (kept, stopped, over)}

    assert here.renew(held) == Renewal(frozenset({over.id}), frozenset({stopped.id}))
    assert here.glance([], held).held == here.renew(held)
    assert there.renew(held).lost == frozenset(held)


def test_a_server_that_starts_takes_back_its_own_at_once_and_others_when_they_are_late(database: Database) -> None:
    own, late = run(server(database, "me")), run(server(database, "late", OVER))
    run(server(database, "alive"))

    assert {job.id for job in server(database, "me").recover(5)} == {own.id, late.id}
    assert server(database, "me").recover(5) == []


def test_what_runs_here_is_left_to_its_worker(database: Database) -> None:
    store = server(database, "me", OVER)
    job = run(store)
    assert store.recover(5, [job.id], starting=False) == []
    assert [item.id for item in store.recover(5, starting=False)] == [job.id]


def test_a_job_that_outlives_too_many_servers_is_given_up(database: Database) -> None:
    store = server(database, "me", OVER)
    run(store)
    (again,) = store.recover(2, starting=False)
    claim(store)
    (lost,) = store.recover(2, starting=False)

    assert (again.state, lost.state) == (State.QUEUED, State.FAILED)
    assert lost.failure is not None
    assert lost.failure.reason == "WORKER_LOST"


def test_a_job_is_put_back_by_one_server_only(database: Database) -> None:
    jobs = {run(server(database, "dead", OVER)).id for _ in range(5)}
    found: list[str] = []

    def look(name: str) -> None:
        found.extend(job.id for job in server(database, name).recover(5, starting=False))

    together(*(lambda name=name: look(name) for name in ("one", "two", "three", "four")))
    assert sorted(found) == sorted(jobs)


def test_a_glance_shows_what_others_did(database: Database) -> None:
    here, there = server(database, "here"), server(database, "there")
    job = run(there)
    before = here.glance([job.id, "unknown"], {})
    there.record_progress(job.id, PROGRESS, 1)
    there.create(NewJob(SPEC), 100)
    after = here.glance([job.id], {})

    assert (before.sequences, before.waiting) == ({job.id: 2}, False)
    assert (after.sequences, after.waiting) == ({job.id: 3}, True)


def test_many_at_once_get_no_more_than_the_queue_takes(database: Database) -> None:
    refused = itertools.count()

    def create() -> None:
        try:
            server(database, "any").create(NewJob(SPEC), 3)
        except QuotaError:
            next(refused)

    together(*[create] * 8)
    assert (len(server(database, "any").newest(100)), next(refused)) == (3, 5)


def test_principals_take_turns_with_many_servers(database: Database) -> None:
    for principal in ("alice",) * 6 + ("bob",) * 3:
        server(database, "any").create(NewJob(SPEC, principal=principal), 100)
    first: list[str] = []
    together(*(lambda name=name: first.append(claim(server(database, name)).principal) for name in "abcdef"))

    assert sorted(first) == ["alice"] * 3 + ["bob"] * 3


def test_a_server_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    name = runner_of(tmp_path)
    assert runner_of(tmp_path) == name != runner_of(tmp_path / "other")


def together(*calls: Callable[[], object]) -> None:
    """Makes calls in threads that start at the same time."""
    barrier = threading.Barrier(len(calls))
    errors: list[BaseException] = []

    def make(call: Callable[[], object]) -> None:
        barrier.wait()
        try:
            call()
        except BaseException as exc:  # noqa: BLE001 (raised below)
            errors.append(exc)

    threads = [threading.Thread(target=make, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
