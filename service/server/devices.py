"""The devices that jobs may name, as ListDevices tells of them."""

from __future__ import annotations

from google.protobuf.json_format import ParseDict

from protos.shoal.v1 import device_pb2 as pb
from service.devices.agents import Agent
from service.devices.desk import Desk


def list_devices(desk: Desk) -> list[pb.Device]:
    """Returns this machine's own device first, then those of agents by name."""
    queues = desk.work.waiting()
    return [_own(), *(_of_agent(agent, *queues.get(agent.name, (0, 0))) for agent in desk.agents.all())]


def _own() -> pb.Device:
    from deploy.errors import RuntimeMissingError
    from deploy.machine import describe_device
    from deploy.runtimes import RUNTIMES

    machine = describe_device()
    device = pb.Device(
        name="local/cpu",
        state=pb.Device.STATE_IDLE,
        description=machine.model,
        architecture=machine.architecture,
        cores=machine.cores,
        memory_bytes=machine.memory_bytes or 0,
    )
    for runtime in RUNTIMES.values():
        try:
            device.runtimes.add(name=runtime.name, version=runtime.version())
        except RuntimeMissingError:
            continue
    return device


def _of_agent(agent: Agent, waiting: int, working: int) -> pb.Device:
    # What an older or newer agent says and this server does not know is left out.
    device = ParseDict(dict(agent.device or {}), pb.Device(), ignore_unknown_fields=True)
    device.name, device.waiting = agent.target, waiting
    device.state = pb.Device.STATE_OFFLINE
    if agent.online:
        device.state = pb.Device.STATE_BUSY if working else pb.Device.STATE_IDLE
    if agent.last_seen is not None:
        device.last_seen.FromDatetime(agent.last_seen)
    return device
