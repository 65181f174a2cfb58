"""A call that is being answered ends soon after its caller lost the right to it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.access.tokens import TokenStore
from service.database.database import Database
from service.errors import DatabaseUnavailableError, ForbiddenError
from service.server.recheck import kept, kept_stream
from service.settings import ServerSettings
from tests.service.callers import make_tokens, speaking
from tests.service.server_harness import (
    Refusal,
    reached,
    refusal,
    running,
    settings_for,
    start_job,
    upload_messages,
    worker_command,
)

RUNNING = job_pb.OptimizationJob.STATE_RUNNING


def remove_token(settings: ServerSettings, name: str) -> None:
    database = Database(settings.database)
    TokenStore(database).remove(name)
    database.close()


async def read_all(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


async def test_a_watch_and_an_upload_end_with_their_token(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=worker_command("sleep"), recheck_seconds=0.2)
    alice, bob = make_tokens(settings, "alice", "bob")
    async with running(settings) as stub:
        mine, theirs = speaking(stub, alice), speaking(stub, bob)
        jobs = [await start_job(mine), await start_job(theirs)]
        await reached(mine, jobs[0].name, lambda job: job.state == RUNNING)
        watches = [
            asyncio.create_task(
                refused(each.WatchOptimizationJob(service_pb.WatchOptimizationJobRequest(name=job.name)))
            )
            for each, job in zip((mine, theirs), jobs, strict=True)
        ]
        data = b"x" * 5000
        sent = asyncio.Event()

        async def slowly() -> AsyncIterator[service_pb.UploadArtifactRequest]:
            for number, message in enumerate(upload_messages(data, upload_id="upload-slow")):
                if number == 3:
                    sent.set()
                    await asyncio.sleep(60)
                yield message

        uploading = asyncio.create_task(refusal(mine.UploadArtifact(slowly())))
        await sent.wait()
        await asyncio.sleep(0.5)
        assert not watches[0].done()
        assert not uploading.done()
        remove_token(settings, "alice")
        ended = [await asyncio.wait_for(each, 20) for each in (watches[0], uploading)]
        assert not watches[1].done()
        watches[1].cancel()

    assert {each.code for each in ended} == {grpc.StatusCode.UNAUTHENTICATED}


async def refused(stream: AsyncIterator[Any]) -> Refusal:
    return await refusal(read_all(stream))


class Gate:
    """Lets in until it is closed."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def __call__(self) -> None:
        if self.error is not None:
            raise self.error


async def count(done: list[str]) -> AsyncIterator[int]:
    try:
        for number in range(300):
            yield number
            await asyncio.sleep(0.01)
    finally:
        done.append("closed")


async def test_a_stream_that_is_always_busy_ends_too(tmp_path: Path) -> None:
    gate, closed, seen = Gate(), list[str](), list[int]()
    try:
        async for number in kept_stream(count(closed), gate, 0.05):
            seen.append(number)
            if number == 5:
                gate.error = ForbiddenError("no longer")
    except ForbiddenError:
        closed.append("refused")

    assert closed == ["closed", "refused"]
    assert 5 < len(seen) < 500


async def test_who_cannot_be_asked_about_just_now_goes_on() -> None:
    gate = Gate()
    gate.error = DatabaseUnavailableError("away")
    assert [number async for number in kept_stream(count([]), gate, 0.0001) if number < 20][:3] == [0, 1, 2]


async def test_an_answer_is_stopped_when_its_caller_leaves() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    call = asyncio.create_task(kept(work(), Gate(), 60))
    await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait({call})

    assert ended.is_set()
    assert call.cancelled()


async def test_a_stream_that_just_ends_when_it_is_cancelled_is_not_complained_of() -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))

    async def answers() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return
        yield 1

    async def look() -> None:
        """Finds nothing against it."""

    stream = kept_stream(answers(), look, 60)
    reading = asyncio.create_task(read_all(stream))
    await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.wait({reading})
    del reading, stream
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


@pytest.mark.parametrize("turns", range(6))
async def test_a_stream_that_ended_right_before_it_is_cancelled_is_not_complained_of(turns: int) -> None:
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    end = asyncio.Event()

    async def answers() -> AsyncIterator[int]:
        await end.wait()
        for nothing in ():
            yield nothing

    async def look() -> None:
        """Finds nothing against it."""

    stream = kept_stream(answers(), look, 60)
    reading = asyncio.create_task(read_all(stream))
    await asyncio.sleep(0.01)
    end.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})
    del reading, stream
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
