from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.worker import limits


@pytest.mark.parametrize(
    ("quota", "processors", "room"),
    [
        ("max 100000", 1, 8),
        ("max 100000", 3, 2),
        ("max 100000", 0, 8),
        ("max 100000", 16, 1),
        ("250000 100000", 1, 2),
        ("50000 100000", 1, 1),
        ("1600000 100000", 0.5, 16),
    ],
)
def test_jobs_find_room_on_the_processors_that_a_container_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, processors: float, room: int
) -> None:
    told = tmp_path / "cpu.max"
    told.write_text(quota)
    monkeypatch.setattr(limits, "_CGROUP_PROCESSORS", told)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))

    assert limits.side_by_side(processors) == room
