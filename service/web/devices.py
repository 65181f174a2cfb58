"""The page about devices."""

from __future__ import annotations

from asyncio import to_thread
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, final

from starlette.requests import Request
from starlette.responses import Response

from protos.shoal.v1 import device_pb2 as pb
from service.report.formats import significant, size
from service.server.devices import list_devices
from service.server.servicer import Parts
from service.web.drawing import page
from service.web.visitors import Visitors

_STATES: Final = {
    pb.Device.STATE_IDLE: ("Idle", "good"),
    pb.Device.STATE_BUSY: ("Busy", "live"),
    pb.Device.STATE_OFFLINE: ("Offline", "bad"),
}


@dataclass(frozen=True)
class DeviceView:
    """A device in words.

    Attributes:
        tone: Class of its state.
        last_seen: When its agent was last heard of; None for the server's own.
        facts: Names and values of its machine.
        health: Names and values of how it was then.
    """

    name: str
    state: str
    tone: str
    description: str
    waiting: int
    runtimes: tuple[str, ...]
    last_seen: datetime | None
    facts: tuple[tuple[str, str], ...]
    health: tuple[tuple[str, str], ...]


@final
class Devices:
    """The devices that jobs may name."""

    def __init__(self, parts: Parts, visitors: Visitors) -> None:
        """Serves from the parts of a server."""
        self._parts, self._visitors = parts, visitors

    async def all(self, request: Request) -> Response:
        """Lists devices."""
        visitor = await self._visitors.admit(request)
        found = await to_thread(list_devices, self._parts.desk)
        return page(
            "devices.html.j2",
            visitor=visitor,
            current="devices",
            title="Devices",
            devices=[describe_device(device) for device in found],
        )


def describe_device(device: pb.Device) -> DeviceView:
    """Returns a device in words."""
    state, tone = _STATES.get(device.state, ("Unknown", "none"))
    return DeviceView(
        name=device.name,
        state=state,
        tone=tone,
        description=device.description,
        waiting=device.waiting,
        runtimes=tuple(f"{one.name} {one.version}".strip() for one in device.runtimes),
        last_seen=device.last_seen.ToDatetime(UTC) if device.HasField("last_seen") else None,
        facts=_facts(device),
        health=_health(device.health),
    )


def _facts(device: pb.Device) -> tuple[tuple[str, str], ...]:
    pairs = (
        ("Architecture", device.architecture),
        ("Processors", str(device.cores) if device.cores else ""),
        ("Memory", size(device.memory_bytes) if device.memory_bytes else ""),
        ("Agent", device.agent_version),
    )
    return tuple(pair for pair in pairs if pair[1])


def _health(health: pb.DeviceHealth) -> tuple[tuple[str, str], ...]:
    pairs = []
    if health.HasField("temperature_celsius"):
        pairs.append(("Temperature", f"{health.temperature_celsius:.0f}\N{NARROW NO-BREAK SPACE}°C"))
    if health.HasField("load_average"):
        pairs.append(("Load", significant(health.load_average)))
    if health.HasField("available_memory_bytes"):
        pairs.append(("Free memory", size(health.available_memory_bytes)))
    if health.power_mode:
        pairs.append(("Clocks", health.power_mode))
    return tuple(pairs)
