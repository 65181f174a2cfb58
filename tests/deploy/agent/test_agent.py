"""An agent and servers that refuse it now and then, as a proxy in between may."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import grpc
import pytest

from deploy.agent.agent import run_agent
from deploy.agent.errors import AgentError
from deploy.agent.link import Link
from deploy.agent.settings import AgentSettings
from protos.shoal.v1 import device_agents_pb2 as pb
from protos.shoal.v1 import device_pb2
from protos.shoal.v1.device_agents_pb2_grpc import DeviceAgentsServicer, add_DeviceAgentsServicer_to_server


@final
class Gate(DeviceAgentsServicer):
    """Has no work, and says no to the calls of `RegisterDevice` that it is told to."""

    def __init__(self, refused: set[int]) -> None:
        self.calls, self.refused = 0, refused

    def RegisterDevice(self, _request: pb.RegisterDeviceRequest, context: Any) -> pb.RegisterDeviceResponse:  # noqa: N802
        self.calls += 1
        if self.calls in self.refused:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "not now")
        answer = pb.RegisterDeviceResponse(name="agent/edge")
        answer.heartbeat.FromMilliseconds(20)
        return answer

    def LeaseWork(self, _request: pb.LeaseWorkRequest, _context: Any) -> pb.LeaseWorkResponse:  # noqa: N802
        time.sleep(0.05)
        return pb.LeaseWorkResponse()


def serve(gate: Gate, **options: int) -> tuple[grpc.Server, str]:
    server = grpc.server(ThreadPoolExecutor(4), options=list(options.items()))
    add_DeviceAgentsServicer_to_server(gate, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def wait_for(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_an_agent_that_was_refused_once_goes_on_saying_that_it_lives(tmp_path: Path) -> None:
    gate, stop = Gate(refused={2, 3}), threading.Event()
    server, address = serve(gate)
    runner = threading.Thread(target=run_agent, args=(AgentSettings(address, "token", tmp_path), stop))
    runner.start()
    went_on = wait_for(lambda: gate.calls > 4)
    stop.set()
    runner.join(timeout=30)
    server.stop(None)
    assert went_on


def test_a_message_that_is_too_large_is_not_sent_for_ever(tmp_path: Path) -> None:
    server, address = serve(Gate(set()), **{"grpc.max_receive_message_length": 1000})
    link = Link(AgentSettings(address, "token", tmp_path), "session-one", threading.Event())
    with pytest.raises(AgentError, match="message larger than max"):
        link.register(device_pb2.Device(description="x" * 2000))
    link.close()
    server.stop(None)
