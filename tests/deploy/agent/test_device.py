"""What an agent says of its device, and when it measures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from deploy.agent.device import cool_down, describe, health, measured_device, read_state
from deploy.bench import LocalBench
from deploy.gpu import GpuState
from deploy.jetson import JetsonState
from deploy.machine import describe_device, read_clock_state


def test_a_device_tells_what_it_is_and_can_run() -> None:
    device, machine = describe(), describe_device()
    assert (device.cores, device.architecture) == (machine.cores, machine.architecture)
    runtimes = {one.name: one.version for one in device.runtimes}
    assert runtimes["onnxruntime"] == LocalBench().facts().runtime_version
    assert device.health.available_memory_bytes > 0


def readings(*degrees: float | None):
    states = iter([replace(read_clock_state(), temperature_celsius=value) for value in degrees])
    return lambda: next(states)


def test_a_hot_device_is_waited_for() -> None:
    waits: list[float] = []

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return False

    cool_down(70.0, 300.0, wait, readings(90.0, 80.0, 69.0))
    assert len(waits) == 2


def never(_seconds: float) -> bool:
    raise AssertionError("it waited")


def test_a_hot_gpu_is_waited_for() -> None:
    waits: list[float] = []
    cool = replace(read_clock_state(), temperature_celsius=40.0)
    states = iter([replace(cool, gpu=GpuState(temperature_celsius=degrees)) for degrees in (85.0, 60.0)])
    cool_down(70.0, 300.0, lambda seconds: bool(waits.append(seconds)), lambda: next(states))
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("request_", "device"),
    [
        (json.dumps({"settings": {"device": "cuda:1"}}), "cuda:1"),
        (json.dumps({"settings": {}}), "cpu"),
        ("[]", "cpu"),
        ("no JSON", "cpu"),
    ],
)
def test_the_device_to_be_measured_is_told_by_the_request(request_: str, device: str) -> None:
    assert measured_device(request_) == device


@pytest.mark.parametrize("device", ["cuda:99", "no device"])
def test_the_state_of_a_device_that_is_not_here_is_that_of_the_machine(device: str) -> None:
    assert read_state(device).gpu is None


@pytest.mark.parametrize(
    ("jetson", "governor", "mode"),
    [
        (JetsonState("15W", None, None), "schedutil", "15W"),
        (JetsonState(None, None, None), "schedutil", "schedutil"),
        (None, "schedutil", "schedutil"),
        (None, None, ""),
    ],
)
def test_the_power_mode_of_a_jetson_comes_before_its_governor(
    jetson: JetsonState | None, governor: str | None, mode: str
) -> None:
    state = replace(read_clock_state(), jetson=jetson, governor=governor)
    assert health(lambda: state).power_mode == mode


def test_the_wait_has_an_end() -> None:
    assert cool_down(70.0, 0.0, never, readings(90.0)) < 1.0


def test_who_is_called_off_waits_no_longer() -> None:
    waits: list[float] = []

    def called_off(seconds: float) -> bool:
        waits.append(seconds)
        return True

    cool_down(70.0, 300.0, called_off, readings(90.0))
    assert len(waits) == 1


def test_a_device_without_thermometer_is_measured_at_once() -> None:
    assert cool_down(70.0, 300.0, never, readings(None)) < 1.0
