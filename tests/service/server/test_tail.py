"""Watchers of one job share what is read of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from service.database.database import Database
from service.jobs.job import NewJob, Progress
from service.jobs.store import JobStore
from service.server.tail import Tail
from service.spec import JobSpec

SPEC = JobSpec.model_validate({"model": {"pt2_artifact": "artifacts/none"}, "budget": {"fraction": 0.5}})


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobStore]:
    database = Database(f"sqlite:///{tmp_path / 'shoal.db'}")
    yield JobStore(database)
    database.close()


@pytest.fixture
def reads() -> Iterator[list[str]]:
    """The statements that read events."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT") and "FROM events" in statement:
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


def running(jobs: JobStore) -> str:
    job = jobs.create(NewJob(SPEC), queue_limit=10)
    jobs.claim()
    return job.id


async def test_a_hundred_who_ask_at_once_cost_one_read(jobs: JobStore, reads: list[str]) -> None:
    job_id, tail = running(jobs), Tail(jobs)
    answers = await asyncio.gather(*(tail.after(job_id, 0) for _ in range(100)))

    assert {tuple(news.sequence for news in answer) for answer in answers} == {(1, 2)}
    assert len(reads) == 1


async def test_what_was_committed_before_one_asks_is_in_the_answer(jobs: JobStore, reads: list[str]) -> None:
    job_id, tail = running(jobs), Tail(jobs)
    early = [asyncio.create_task(tail.after(job_id, 2)) for _ in range(10)]
    await asyncio.sleep(0)  # the first read is under way, and finds nothing
    await asyncio.to_thread(jobs.record_progress, job_id, Progress(phase="plan", fraction=0.5))
    late = await asyncio.gather(*(tail.after(job_id, 2) for _ in range(10)))
    await asyncio.gather(*early)

    assert {tuple(news.sequence for news in answer) for answer in late} == {(3,)}
    assert len(reads) <= 3


async def test_one_who_leaves_takes_nothing_from_the_others(jobs: JobStore) -> None:
    job_id, tail = running(jobs), Tail(jobs)
    first, second = (asyncio.create_task(tail.after(job_id, 0)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()

    assert len(await second) == 2
