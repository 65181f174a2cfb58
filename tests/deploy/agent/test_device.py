"""What an agent says of its device, and when it measures."""

from __future__ import annotations

from dataclasses import replace

from deploy.agent.device import cool_down, describe
from deploy.bench import LocalBench
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
