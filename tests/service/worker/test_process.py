from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.spec import JobSpec
from service.worker import process
from service.worker.messages import ProgressEvent, ResultEvent, WorkOrder
from service.worker.process import Exit, run_worker
from tests.service.server_harness import gone, settings_for, worker_command

SPEC = JobSpec.model_validate({"model": {"pt2_artifact": "artifacts/some"}, "budget": {"fraction": 0.5}})


def order_in(tmp_path: Path, deadline: float = 30.0) -> WorkOrder:
    (tmp_path / "job" / "out").mkdir(parents=True)
    return WorkOrder(
        job="optimizationJobs/some",
        task="optimize",
        spec=SPEC,
        folder=tmp_path / "job",
        cache_folder=tmp_path / "cache",
        deadline_seconds=deadline,
    )


async def run(tmp_path: Path, *command: str, deadline: float = 30.0, **changes: Any) -> Exit:
    settings = settings_for(tmp_path, worker_command=worker_command(*command), **changes)
    return await run_worker(order_in(tmp_path, deadline), settings, lambda _event: None, asyncio.Event())


async def test_a_worker_sees_its_own_folder_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONSTARTUP", "/tmp/evil.py")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    await run(tmp_path, "probe", worker_open_files=100, worker_file_bytes=1 << 20)
    folder = tmp_path / "job"
    seen = json.loads((folder / "out/probe.json").read_text())

    assert "secret" not in seen["environment"].values()
    assert "PYTHONSTARTUP" not in seen["environment"]
    assert seen["environment"]["OMP_NUM_THREADS"] == "3"
    assert seen["environment"]["HOME"] == str(folder / "home")
    assert seen["environment"]["TMPDIR"] == str(folder / "tmp")
    assert seen["folder"] == str(folder)
    assert seen["leads_session"]
    assert seen["core"] == [0, 0]
    assert seen["open_files"] == [100, 100]
    assert seen["file_bytes"] == [1 << 20, 1 << 20]
    assert seen["descriptors"] == 4  # its three pipes, and the folder it is counting in


async def test_progress_and_result_arrive_in_order(tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    settings = settings_for(tmp_path)
    ended = await run_worker(order_in(tmp_path), settings, events.append, asyncio.Event())

    assert [event.phase for event in events] == ["load", "plan", "report"]
    assert ended == Exit(result=ResultEvent(file="out/report.json"))


@pytest.mark.parametrize(("command", "code"), [(("die", "9"), -9), (("die", "11"), -11), (("die", "exit", "3"), 3)])
async def test_a_death_is_told_by_its_status(tmp_path: Path, command: tuple[str, ...], code: int) -> None:
    assert await run(tmp_path, *command) == Exit(returncode=code)


@pytest.mark.parametrize(("kind", "words"), [("text", "no event"), ("huge", "a line over")])
async def test_what_is_no_event_ends_the_worker(tmp_path: Path, kind: str, words: str) -> None:
    ended = await run(tmp_path, "garbage", kind)

    assert ended.garbage is not None
    assert words in ended.garbage
    assert ended.returncode == -9


async def test_the_time_limit_ends_a_worker(tmp_path: Path) -> None:
    started = time.monotonic()
    ended = await run(tmp_path, "sleep", deadline=0.2, deadline_grace=0.2)

    assert ended.expired
    assert time.monotonic() - started < 3


async def test_a_worker_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    stop, children = asyncio.Event(), []

    def on_progress(event: ProgressEvent) -> None:
        children.append(int(event.metrics["child"]))
        stop.set()

    settings = settings_for(tmp_path, worker_command=worker_command("stubborn"), cancel_grace=0.2)
    ended = await run_worker(order_in(tmp_path), settings, on_progress, stop)

    assert ended.stopped
    assert ended.returncode == -9
    await gone(children[0])


@pytest.mark.parametrize("times", [1, 2], ids=["once", "again while it waits for the end"])
async def test_a_cancelled_supervision_takes_the_worker_along(tmp_path: Path, times: int) -> None:
    reported = asyncio.Event()
    # It holds so much that it is not gone at once.
    settings = settings_for(tmp_path, worker_command=worker_command("sleep", "500"))
    others = set(psutil.Process().children())
    task = asyncio.create_task(run_worker(order_in(tmp_path), settings, lambda _event: reported.set(), asyncio.Event()))
    await reported.wait()
    workers = list(set(psutil.Process().children()) - others)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert workers
    # Gone and waited for, not a zombie: the loop that would hear of it may end now.
    assert not [worker for worker in workers if worker.is_running()]


async def test_a_worker_that_hangs_after_its_result_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_EXIT_SECONDS", 0.2)
    ended = await run(tmp_path, "linger", "self")

    assert ended.result == ResultEvent(file="out/report.json")
    assert not ended.expired
    assert not ended.stopped


async def test_a_runaway_on_the_pipes_is_not_waited_for(tmp_path: Path) -> None:
    started = time.monotonic()
    ended = await run(tmp_path, "linger", "child")

    assert ended.result == ResultEvent(file="out/report.json")
    assert time.monotonic() - started < 6


async def test_the_log_is_bounded_and_keeps_the_end(tmp_path: Path) -> None:
    await run(tmp_path, "chatter", worker_log_bytes=40_000)
    log, before = tmp_path / "job/log", tmp_path / "job/log.1"

    assert log.read_text().endswith("the end\n")
    assert 20_000 < log.stat().st_size + before.stat().st_size <= 40_000


async def test_a_worker_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, worker_command=("/nonexistent",))
    with pytest.raises(FileNotFoundError):
        await run_worker(order_in(tmp_path), settings, lambda _event: None, asyncio.Event())
