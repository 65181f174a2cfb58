"""How jobs came to be as they are, from their events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event

from service.database.database import Database
from service.jobs.job import Event, Failure, Job, NewJob, Progress
from service.jobs.states import State
from service.jobs.store import Ending, JobStore
from service.spec import JobSpec
from service.web.stories import Stories, Story

START = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = JobSpec.model_validate({"model": {"named": {"architecture": "timm:x"}}, "budget": {"fraction": 0.5}})


def told(*bodies: Job | Progress) -> Story:
    """A story of events that are ten seconds apart."""
    story = Story(job())
    for at, body in enumerate(bodies, start=1):
        story.tell(Event(at, START + timedelta(seconds=10 * at), body))
    return story


def job(state: State = State.QUEUED, **changes: Any) -> Job:
    return Job(id="job-1", spec=SPEC, display_name="", state=state, create_time=START, **changes)


def progress(phase: str, message: str = "", **metrics: float) -> Progress:
    return Progress(phase=phase, fraction=0.5, message=message, metrics=metrics, time_left=timedelta(seconds=30))


def test_phases_follow_each_other() -> None:
    story = told(job(), job(State.RUNNING), progress("load"), progress("plan", "looking"))
    marks = {row.name: row.mark for row in story.phases.rows}
    assert (marks["load"], marks["analyze"], marks["plan"], marks["tune"]) == ("done", "skipped", "active", "waiting")
    assert story.phases.seconds_left == 30
    assert story.job.progress == progress("plan", "looking")


def test_the_log_has_changes_of_state_and_phases_with_their_messages() -> None:
    failure = Failure(reason="X", message="it broke", blame="shoal")
    story = told(job(), job(State.RUNNING), progress("load", "reading"), job(State.FAILED, failure=failure))
    lines = [(line.kind, line.text) for line in story.lines]
    assert lines == [("state", "Queued"), ("state", "Running"), ("load", "reading"), ("state", "Failed: it broke")]


def test_messages_that_come_thick_and_fast_are_not_all_logged() -> None:
    story = Story(job())
    for at in range(100):
        story.tell(Event(at + 1, START + timedelta(seconds=at / 10), progress("tune", f"step {at}")))
    assert [line.text for line in story.lines] == ["step 0", "step 50"]
    assert story.phases.active is not None
    assert story.phases.active.note == "step 99"


def test_another_attempt_starts_over() -> None:
    story = told(job(State.RUNNING), progress("tune", loss=1.0), job(), job(State.RUNNING, attempts=2))
    assert story.phases.active is None
    assert story.curves == {}
    assert story.lines[-1].text == "Running, attempt 2"


def test_numbers_have_a_course() -> None:
    story = told(job(State.RUNNING), *(progress("tune", loss=value, baseline_ms=4.0) for value in (3.0, 2.0, 1.0)))
    assert story.curves["loss"].latest == 1.0
    assert story.curves["loss"].points
    assert not story.curves["baseline_ms"].points


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(f"sqlite:///{tmp_path / 'shoal.db'}")
    yield found
    found.close()


async def test_many_who_ask_at_once_read_once(database: Database) -> None:
    jobs = JobStore(database)
    made = jobs.create(NewJob(SPEC), 10)
    stories = Stories(jobs)
    first = await stories.of(made)
    jobs.claim()
    statements: list[str] = []
    sqlalchemy_event.listen(database._engine, "before_cursor_execute", lambda *call: statements.append(call[2]))

    found = await asyncio.gather(*(stories.of(made) for _ in range(100)))

    assert {id(story) for story in found} == {id(first)}
    assert first.job.state is State.RUNNING
    assert 1 <= sum("FROM events" in statement for statement in statements) <= 2


async def test_a_job_that_is_over_is_read_to_its_end_and_then_no_more(database: Database) -> None:
    jobs = JobStore(database)
    made = jobs.create(NewJob(SPEC), 10)
    jobs.claim()
    ended = jobs.finish(made.id, Ending(State.FAILED, failure=Failure(reason="X", message="y", blame="shoal")))
    stories = Stories(jobs)

    story = await stories.of(ended)
    assert story.over
    assert [line.text for line in story.lines] == ["Queued", "Running", "Failed: y"]
    database.close()
    assert await stories.of(ended) is story
