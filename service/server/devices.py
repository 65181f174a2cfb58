"""The devices that jobs may name, as ListDevices tells of them."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.json_format import ParseDict

from protos.shoal.v1 import device_pb2 as pb
from service.devices.agents import Agent
from service.devices.desk import Desk


def list_devices(desk: Desk) -> list[pb.Device]:
    """Returns this machine's own devices first, then those of agents by name."""
    queues = desk.work.waiting()
    found = [_of_agent(agent, *queues.get(agent.name, (0, 0))) for agent in desk.agents.all()]
    return [*_own(), *(device for devices in found for device in devices)]


def _own() -> Iterator[pb.Device]:
    from deploy.agent.device import describe

    device = describe()
    device.ClearField("agent_version")
    device.state = pb.Device.STATE_IDLE
    yield from _by_device(device, "local", "local/cpu")


def _of_agent(agent: Agent, waiting: int, working: int) -> list[pb.Device]:
    # What an older or newer agent says and this server does not know is left out.
    device = ParseDict(dict(agent.device or {}), pb.Device(), ignore_unknown_fields=True)
    device.waiting = waiting
    device.state = pb.Device.STATE_OFFLINE
    if agent.online:
        device.state = pb.Device.STATE_BUSY if working else pb.Device.STATE_IDLE
    if agent.last_seen is not None:
        device.last_seen.FromDatetime(agent.last_seen)
    return list(_by_device(device, agent.target, agent.target))


def _by_device(machine: pb.Device, prefix: str, processor: str) -> Iterator[pb.Device]:
    """Yields a machine's devices, each with the runtimes that run on it."""
    runtimes = list(machine.runtimes)
    for where in dict.fromkeys(["cpu", *(runtime.device or "cpu" for runtime in runtimes)]):
        device = pb.Device()
        device.CopyFrom(machine)
        device.name = processor if where == "cpu" else f"{prefix}/{where}"
        device.ClearField("runtimes")
        device.runtimes.extend(runtime for runtime in runtimes if (runtime.device or "cpu") == where)
        yield device
