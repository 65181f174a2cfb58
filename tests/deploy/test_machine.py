from __future__ import annotations

import os
from dataclasses import replace

import pytest

from deploy.errors import DeviceMissingError
from deploy.machine import describe_device, read_clock_state, usable_cores
from tests.deploy.gpus import SERVER


def test_the_device_is_described() -> None:
    device = describe_device()
    assert device.model
    assert 1 <= device.cores <= (os.cpu_count() or 1)
    assert device.memory_bytes is None or device.memory_bytes > 2**20
    assert device.model in device.fingerprint
    assert device == describe_device()


def test_affinity_counts() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_the_clock_state_advances() -> None:
    before = read_clock_state()
    sum(range(100_000))
    after = read_clock_state()
    assert after.monotonic_seconds > before.monotonic_seconds
    assert all(clock > 0 for clock in before.mhz)
    for name in ("steal_seconds", "waited_seconds"):
        early, late = getattr(before, name), getattr(after, name)
        assert (early is None and late is None) or late >= early >= 0


def test_the_memory_that_is_left_is_noted() -> None:
    available, total = read_clock_state().available_memory_bytes, describe_device().memory_bytes
    assert available is not None
    assert total is not None
    assert 2**20 < available < total


def test_times_on_a_gpu_are_kept_apart_from_those_of_its_processor() -> None:
    processor = describe_device()
    both = replace(processor, gpu=SERVER)
    assert both.fingerprint.startswith(processor.fingerprint)
    assert SERVER.fingerprint in both.fingerprint
    assert both.title == f"NVIDIA L4 in {processor.model}"


@pytest.mark.parametrize("ask", [describe_device, read_clock_state])
def test_a_device_that_is_not_here_is_refused(ask: object) -> None:
    with pytest.raises(DeviceMissingError, match="there are: cpu"):
        ask("cuda:99")  # type: ignore[operator]
