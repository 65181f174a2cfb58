"""What an agent says of its device."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from deploy.devices import parse_device
from deploy.errors import DeployError, DeviceMissingError
from deploy.gpu import list_devices
from deploy.machine import ClockState, describe_device, read_clock_state
from deploy.runtimes import RUNTIMES
from protos.shoal.v1 import device_pb2 as pb

_COOL_STEP_SECONDS: Final = 2.0


def describe() -> pb.Device:
    """Returns the machine and the runtimes that can be used on it."""
    machine = describe_device()
    device = pb.Device(
        description=f"{machine.model}, {machine.system}",
        architecture=machine.architecture,
        cores=machine.cores,
        memory_bytes=machine.memory_bytes or 0,
        agent_version=_version(),
    )
    for runtime, version_, where in installed():
        device.runtimes.add(name=runtime, version=version_, device=where)
    device.health.CopyFrom(health())
    return device


def installed() -> Iterator[tuple[str, str, str]]:
    """Yields the name and version of each runtime that is installed, with each device that it runs on."""
    for where in list_devices():
        for (name, kind), runtime in RUNTIMES.items():
            if kind == parse_device(where).kind:
                with suppress(DeployError):
                    yield name, runtime.version(), where


def health(read: Callable[[], ClockState] = read_clock_state) -> pb.DeviceHealth:
    """Returns how the machine is. Not to be asked while something is measured.

    Args:
        read: The state of the machine.
    """
    state = read()
    found = pb.DeviceHealth(power_mode=_power_mode(state))
    if state.temperature_celsius is not None:
        found.temperature_celsius = state.temperature_celsius
    if state.load_average is not None:
        found.load_average = state.load_average[0]
    if state.available_memory_bytes is not None:
        found.available_memory_bytes = state.available_memory_bytes
    return found


def cool_down(
    below: float | None,
    seconds: float,
    wait: Callable[[float], bool],
    read: Callable[[], ClockState] = read_clock_state,
) -> float:
    """Waits until the device is cool enough, and returns for how long it waited, in seconds.

    A device that tells no temperature is not waited for. A GPU that is to be measured counts as the machine does.

    Args:
        below: Degrees Celsius to get below; None waits for nothing.
        seconds: Longest wait.
        wait: Sleeps for so many seconds; returns whether to give up.
        read: The state of the machine.
    """
    started = time.monotonic()
    while below is not None:
        degrees = _hottest(read())
        waited = time.monotonic() - started
        if degrees is None or degrees < below or waited >= seconds or wait(_COOL_STEP_SECONDS):
            break
    return time.monotonic() - started


def measured_device(request: str) -> str:
    """Returns the device, `cpu` or `cuda:N`, that a request wants something measured on; `cpu` where it is none.

    Args:
        request: Of `time` or `profile`, as it came. What is wrong with it is told by who does the work.
    """
    try:
        return str(json.loads(request)["settings"]["device"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "cpu"


def read_state(device: str) -> ClockState:
    """Returns the state of the machine and of one of its devices, if it has that."""
    try:
        return read_clock_state(device)
    except DeviceMissingError:
        return read_clock_state()


def _power_mode(state: ClockState) -> str:
    jetson = None if state.jetson is None else state.jetson.power_mode
    return jetson or state.governor or ""


def _hottest(state: ClockState) -> float | None:
    gpu = None if state.gpu is None else state.gpu.temperature_celsius
    return max((degrees for degrees in (state.temperature_celsius, gpu) if degrees is not None), default=None)


def _version() -> str:
    try:
        return version("shoal")
    except PackageNotFoundError:
        return ""
