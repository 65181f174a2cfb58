"""How questions of a job reach a device's queue, and come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from service.database.database import Database
from service.devices.agents import AgentStore
from service.devices.desk import Desk, JobDesk
from service.devices.files import WorkFiles
from service.devices.letters import ANSWER, FOLDER, QUESTION, AskedWork, DoneWork, write_whole
from service.devices.work import DeviceWork, Held, WorkAnswer, WorkStore

KEY = "a-key"
FAILED = WorkAnswer(failure=("MeasureError", "it failed"))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    database = Database(f"sqlite:///{tmp_path / 'shoal.db'}")
    agents = AgentStore(database)
    agents.add("edge")
    agents.register("edge", "session-one", {})
    yield Desk(agents, WorkStore(database), WorkFiles(str(tmp_path / "store")))
    database.close()


def open_job(desk: Desk, folder: Path, *files: str) -> JobDesk:
    """A job whose worker asks one question."""
    (folder / FOLDER / KEY).mkdir(parents=True)
    (folder / "m.onnx").write_text("a model")
    write_whole(folder / FOLDER / KEY / QUESTION, AskedWork(kind="run", request={}, files=files).model_dump_json())
    return desk.open("optimizationJobs/a", "edge", folder, lambda _message: None)


async def take(desk: Desk) -> DeviceWork:
    found = await desk.lease("edge", "session-one", timedelta(seconds=10))
    assert found is not None
    return found


async def answer(folder: Path) -> DoneWork:
    """What the worker reads, and takes away as it does with failures."""
    path, end = folder / FOLDER / KEY / ANSWER, time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < end, "there is no answer"
        await asyncio.sleep(0.02)
    done = DoneWork.model_validate_json(path.read_text())
    path.unlink()
    return done


async def test_what_failed_is_asked_again_as_other_work(desk: Desk, tmp_path: Path) -> None:
    """An agent that still keeps the failure of the first must not hand it in for the second."""
    folder = tmp_path / "job"
    job = open_job(desk, folder, "m.onnx")
    works = []
    for _ in range(2):
        job.ask(KEY)
        works.append(await take(desk))
        desk.work.complete(Held("edge", "session-one", works[-1].id, works[-1].lease), FAILED)
        desk.publish(works[-1].id)
        assert (await answer(folder)).failure == FAILED.failure
    await job.close()

    assert works[0].id != works[1].id
    with pytest.raises(FileNotFoundError):
        desk.files.open(works[0].id, "in", 0)


async def test_what_is_under_way_is_not_asked_again(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    job = open_job(desk, folder, "m.onnx")
    job.ask(KEY)
    first = await take(desk)
    await job.close()
    again = desk.open("optimizationJobs/a", "edge", folder, lambda _message: None)
    again.ask(KEY)
    desk.work.complete(Held("edge", "session-one", first.id, first.lease), WorkAnswer(took=1.0))
    assert (await answer(folder)).took == 1.0
    await again.close()
    assert desk.work.waiting() == {"edge": (0, 0)}


async def test_a_question_that_no_message_holds_is_refused(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    job = open_job(desk, folder, *["m.onnx"] * 30_000)
    job.ask(KEY)
    failure = (await answer(folder)).failure
    await job.close()
    assert failure is not None
    assert desk.work.waiting() == {}


async def reached(job: JobDesk, low: float, high: float) -> None:
    """Returns once what does not count against the job's time is within bounds."""
    end = time.monotonic() + 10
    while not low <= job.waited <= high:
        assert time.monotonic() < end, job.waited
        await asyncio.sleep(0.02)


async def test_time_in_the_queue_is_not_the_job_s(desk: Desk, tmp_path: Path) -> None:
    job = open_job(desk, tmp_path / "job", "m.onnx")
    job.ask(KEY)
    await reached(job, 0.5, 10.0)
    await take(desk)
    await reached(job, 1.0, 10.0)
    await job.close()


async def test_time_at_work_is_the_job_s_before_there_is_an_answer(desk: Desk, tmp_path: Path) -> None:
    job = open_job(desk, tmp_path / "job", "m.onnx")
    job.ask(KEY)
    work = await take(desk)
    await reached(job, 0.2, 10.0)
    desk.work.renew(Held("edge", "session-one", work.id, work.lease), "at work", 100.0)
    desk.publish(work.id)
    await reached(job, 0.0, 0.0)
    await job.close()


async def test_time_at_work_that_was_lost_is_not_the_job_s(desk: Desk, tmp_path: Path) -> None:
    job = open_job(desk, tmp_path / "job", "m.onnx")
    job.ask(KEY)
    work = await take(desk)
    desk.work.renew(Held("edge", "session-one", work.id, work.lease), "at work", 100.0)
    desk.publish(work.id)
    await reached(job, 0.0, 0.0)
    desk.agents.register("edge", "session-two", {})
    found = desk.work.lease("edge", "session-two")
    assert found is not None
    desk.publish(work.id)
    await reached(job, 0.2, 10.0)
    await job.close()
