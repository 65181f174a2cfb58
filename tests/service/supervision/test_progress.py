from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest

from service.errors import DiskFullError
from service.jobs.job import Progress
from service.supervision.progress import ProgressWriter, to_progress
from service.worker.messages import ProgressEvent


def event(phase: str, fraction: float, **metrics: float) -> ProgressEvent:
    return ProgressEvent(phase=phase, fraction=fraction, metrics=metrics)


@pytest.mark.parametrize("seconds", [0.0, 0.02], ids=["fast database", "slow database"])
async def test_a_flood_is_thinned_and_the_last_report_stays(seconds: float) -> None:
    stored: list[Progress] = []

    def store(progress: Progress) -> None:
        time.sleep(seconds)
        stored.append(progress)

    writer, began = ProgressWriter(store, interval=0.05), time.monotonic()
    for step in range(200):
        writer.offer(event("tune", step / 200))
        await asyncio.sleep(0.001)
    await writer.close()

    assert 2 <= len(stored) <= (time.monotonic() - began) / 0.05 + 2
    assert stored[-1].fraction == 199 / 200


async def test_every_phase_is_stored() -> None:
    stored: list[Progress] = []
    writer = ProgressWriter(stored.append, interval=10)
    for phase in ("load", "plan", "plan", "tune"):
        writer.offer(event(phase, 0.5))
    await writer.close()

    assert [item.phase for item in stored] == ["load", "plan", "tune"]


async def test_a_full_disk_loses_reports_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    def full(_progress: Progress) -> None:
        raise DiskFullError("the disk is full")

    writer = ProgressWriter(full, interval=0)
    writer.offer(event("load", 0.1))
    await writer.close()

    assert "the disk is full" in caplog.text


@pytest.mark.parametrize(
    ("fraction", "metrics", "left"),
    [
        (0.25, {}, timedelta(seconds=30)),
        (1.0, {}, timedelta(0)),
        (0.01, {}, None),
        (0.0, {}, None),
        (0.5, {"seconds_left": 99.0}, timedelta(seconds=99)),
        (0.0, {"seconds_left": -1.0}, timedelta(0)),
    ],
)
def test_the_time_left_is_estimated(fraction: float, metrics: dict[str, float], left: timedelta | None) -> None:
    assert to_progress(event("tune", fraction, **metrics), elapsed=10).time_left == left


def test_numbers_that_are_none_are_left_out() -> None:
    metrics = {"loss": float("nan"), "accuracy": 0.5, "seconds_left": float("inf")}
    progress = to_progress(event("tune", 0.5, **metrics), elapsed=10)

    assert progress.metrics == {"accuracy": 0.5}
    assert progress.time_left == timedelta(seconds=10)
