"""Progress of jobs as server-sent events, read as they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from tests.service.callers import make_tokens
from tests.service.server_harness import worker_command
from tests.service.web.test_access import forget
from tests.service.web.visiting import Shown, showing, shown_settings, stored_result, stored_waiting


@dataclass(frozen=True)
class Message:
    """One event of a stream."""

    kind: str
    id: str
    body: dict[str, str]


@dataclass(frozen=True)
class Stream:
    """An open stream."""

    status: int
    reader: asyncio.StreamReader

    async def next(self) -> Message | None:
        """The next event; None at the end."""
        async with asyncio.timeout(20):
            fields: dict[str, str] = {}
            while line := (await self.reader.readline()).decode():
                name, _, value = line.rstrip("\n").partition(": ")
                if line == "\n" and "data" in fields:
                    body = json.loads(fields["data"]) if fields["data"] else {}
                    return Message(fields.get("event", "message"), fields.get("id", ""), body)
                fields[name] = value
        return None

    async def until(self, text: str) -> Message:
        """The first event that shows a text."""
        while (message := await self.next()) is not None:
            if text in str(message.body):
                return message
        raise AssertionError(f"the stream ended without {text!r}")


@asynccontextmanager
async def opened(shown: Shown, path: str, **headers: str) -> AsyncIterator[Stream]:
    # HTTP/1.0: the body comes as it is, and ends with the connection.
    reader, writer = await asyncio.open_connection("127.0.0.1", shown.visitor.port)
    lines = [f"GET {path} HTTP/1.0", "host: 127.0.0.1", *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    status = int((await reader.readline()).split()[1])
    while (await reader.readline()).strip():
        pass
    try:
        yield Stream(status, reader)
    finally:
        writer.close()


@dataclass(frozen=True)
class Busy:
    """A server with a job that a worker is on for ever."""

    shown: Shown
    job: str

    @property
    def path(self) -> str:
        return f"/jobs/{self.job}/events"

    async def cancel(self) -> None:
        request = service_pb.CancelOptimizationJobRequest(name=f"optimizationJobs/{self.job}")
        await self.shown.stub.CancelOptimizationJob(request)


@asynccontextmanager
async def busy_server(tmp_path: Path, **changes: Any) -> AsyncIterator[Busy]:
    settings = shown_settings(tmp_path, worker_command=worker_command("sleep"), **changes)
    job = stored_waiting(settings, "slow")
    async with showing(settings) as shown:
        yield Busy(shown, job)


@pytest.fixture
async def busy(tmp_path: Path) -> AsyncIterator[Busy]:
    async with busy_server(tmp_path) as found:
        yield found


async def test_a_stream_tells_what_happens_and_ends_with_the_job(busy: Busy) -> None:
    async with opened(busy.shown, busy.path) as stream:
        working = await stream.until("epoch 1")
        await busy.cancel()
        over = await stream.until("Cancelled")
        last = await stream.next()
        nothing = await stream.next()

    assert 'value="25"' in working.body["live"]
    assert working.body["title"] == "25% Running: slow"
    assert working.id
    assert over.body["title"] == "Cancelled: slow"
    assert last is not None
    assert last.kind == "end"
    assert nothing is None


async def test_a_browser_that_was_away_goes_on_where_it_was(busy: Busy) -> None:
    async with opened(busy.shown, busy.path) as stream:
        seen = await stream.until("epoch 1")
    async with opened(busy.shown, busy.path, last_event_id=seen.id) as stream:
        still = await stream.next()
        await busy.cancel()
        over = await stream.until("Cancelled")

    assert still is not None
    assert (still.kind, still.body["lines"]) == ("beat", "")
    assert "epoch 1" not in over.body["lines"]
    assert "Cancelled" in over.body["lines"]


async def test_a_silent_job_gives_signs_of_life(busy: Busy) -> None:
    async with opened(busy.shown, busy.path) as stream:
        await stream.until("epoch 1")
        kinds = {message.kind for _ in range(3) if (message := await stream.next()) is not None}
    assert kinds == {"beat"}


async def test_a_job_that_is_over_is_told_at_once(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path)
    (job,) = stored_result(settings, "done")
    async with showing(settings) as shown, opened(shown, f"/jobs/{job}/events") as stream:
        first, second, third = [await stream.next() for _ in range(3)]
    assert first is not None
    assert "Succeeded" in first.body["live"]
    assert second is not None
    assert second.kind == "end"
    assert third is None


@pytest.mark.parametrize("place", ["-1", "x", "1.5", "9" * 30, "\u00b2"])
async def test_a_place_that_is_no_number_is_refused(busy: Busy, place: str) -> None:
    answer = await busy.shown.visitor.get(f"{busy.path}?after={place.encode('ascii', 'replace').decode()}")
    assert answer.status == 400


async def test_a_stream_ends_when_the_server_stops(busy: Busy) -> None:
    async with opened(busy.shown, busy.path) as stream:
        await stream.until("epoch 1")
        stopping = asyncio.create_task(busy.shown.server.stop())
        while await stream.next() is not None:
            pass
        await stopping


async def test_a_stream_ends_when_the_token_is_removed(tmp_path: Path) -> None:
    settings = shown_settings(tmp_path, worker_command=worker_command("sleep"))
    alice, _ = make_tokens(settings, "alice", "bob")
    job = stored_waiting(settings, "slow", "alice")
    async with showing(settings) as shown:
        async with opened(shown, f"/jobs/{job}/events", authorization=f"Bearer {alice}") as stream:
            await stream.until("epoch 1")
            forget(settings, "alice")
            while await stream.next() is not None:
                pass
        refused = await shown.visitor.get(
            f"/jobs/{job}/events", authorization=f"Bearer {alice}", accept="text/event-stream"
        )
    assert refused.status == 401


async def test_a_hundred_browsers_may_watch_one_job(busy: Busy) -> None:
    async def watch() -> str:
        async with opened(busy.shown, busy.path) as stream:
            await stream.until("epoch 1")
            arrived.release()
            return (await stream.until("Cancelled")).id

    arrived = asyncio.Semaphore(0)
    watching = [asyncio.create_task(watch()) for _ in range(100)]
    for _ in watching:
        await arrived.acquire()
    await busy.cancel()
    assert len(set(await asyncio.gather(*watching))) == 1


async def test_a_head_request_does_not_wait_for_the_job(busy: Busy) -> None:
    answer = await busy.shown.visitor.ask("HEAD", busy.path, {})
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
