from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.database.database import Database
from service.jobs.job import Failure, NewJob
from service.jobs.states import State
from service.jobs.store import Ending, JobStore
from service.spec import JobSpec
from service.watching.jobs import Attempt, JobWatch
from service.watching.meter import Call, JobEnd, Unmeasured
from service.watching.place import Place
from service.watching.prometheus import PrometheusMeter
from service.watching.spans import FinishedSpan, spanning

SPEC = JobSpec.model_validate({"model": {"pt2_artifact": "artifacts/some"}, "budget": {"fraction": 0.5}})
PLACE = Place("1" * 32, "2" * 16, sampled=True)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'some.db'}")
    yield opened
    opened.close()


def test_a_job_is_part_of_the_call_that_made_it(database: Database, finished: list[FinishedSpan]) -> None:
    watch = JobWatch(database, Unmeasured())
    jobs = JobStore(database, ended=watch.ended)
    with spanning("Create", PLACE) as call:
        jobs.create(NewJob(SPEC, id="some-job"), queue_limit=10)
    # As after a restart: nothing but the database is left.
    watch = JobWatch(database, Unmeasured())
    jobs = JobStore(database, ended=watch.ended)
    claimed = jobs.claim()
    assert claimed is not None
    with watch.following(claimed, watch.place(claimed)), watch.attempt(claimed):
        pass
    jobs.finish("some-job", Ending(State.FAILED, failure=Failure(reason="WORKER_DIED", message="x", blame="machine")))

    by_name = {span.name: span for span in finished}
    assert by_name["job"].parent_id == call.place.span_id
    assert by_name["attempt"].parent_id == by_name["job"].place.span_id
    assert {span.place.trace_id for span in finished} == {PLACE.trace_id}
    assert by_name["job"].error == "WORKER_DIED"
    assert by_name["job"].attributes["shoal.job"] == "optimizationJobs/some-job"
    assert by_name["job"].start_ns <= by_name["attempt"].start_ns


def test_every_end_of_a_job_is_counted_once(database: Database) -> None:
    meter = PrometheusMeter()
    jobs = JobStore(database, ended=JobWatch(database, meter).ended)
    for number in range(3):
        jobs.create(NewJob(SPEC, id=f"job-{number}"), queue_limit=10)
    jobs.request_cancel("job-0")
    jobs.request_cancel("job-0")
    jobs.claim()
    jobs.request_cancel("job-1")
    jobs.requeue("job-1")
    jobs.claim()
    jobs.recover(1)

    def count(outcome: str, reason: str = "") -> float | None:
        labels = {"outcome": outcome, "reason": reason, "strategy": "layerfit", "device_class": "local"}
        return meter.registry.get_sample_value("shoal_jobs_finished_total", labels)

    assert (count("cancelled"), count("failed", "WORKER_LOST")) == (2, 1)


def test_phases_are_added_up_and_unknown_ones_are_put_together() -> None:
    attempt = Attempt(PLACE)
    for phase in ("load", "plan", "load", "made up by a worker", "made up as well"):
        attempt.entered(phase)

    assert set(attempt.finish()) == {"load", "plan", "other"}


def test_reasons_from_outside_do_not_become_labels(database: Database) -> None:
    meter = PrometheusMeter()
    jobs = JobStore(database, ended=JobWatch(database, meter).ended)
    jobs.create(NewJob(SPEC), queue_limit=10)
    job = jobs.claim()
    assert job is not None
    failure = Failure(reason="MADE_UP_BY_A_WORKER", message="x", blame="caller")
    jobs.finish(job.id, Ending(State.FAILED, failure=failure))

    labels = {"outcome": "failed", "reason": "other", "strategy": "layerfit", "device_class": "local"}
    assert meter.registry.get_sample_value("shoal_jobs_finished_total", labels) == 1


def test_a_meter_that_counts_nothing_takes_everything() -> None:
    meter = Unmeasured()
    meter.job_ended(JobEnd("failed", "", "layerfit", "local"))
    meter.phases_took("layerfit", {"plan": 1.0})
    meter.worker_started()
    meter.worker_ended(died=True)
    meter.call_ended(Call("a/b", "OK", 0.1, 1, 2))
    meter.database_retried()
    meter.checked("disk", passed=True)
