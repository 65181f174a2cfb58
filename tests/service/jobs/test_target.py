"""Where a job may want its network to run, and what a server says that has no such device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.rpc import error_details_pb2
from pydantic import ValidationError

from deploy.errors import DeviceMissingError
from deploy.gpu import list_gpus
from service.database.database import Database
from service.devices.agents import AgentStore
from service.jobs.admission import check_target
from service.pipeline.shipping import timing_settings
from service.server.status import to_status
from service.spec import Budget, JobSpec, ModelSource, Target


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[AgentStore]:
    database = Database(f"sqlite:///{tmp_path / 'shoal.db'}")
    yield AgentStore(database)
    database.close()


MODEL = ModelSource(onnx_artifact="artifacts/abcd-1234")


@pytest.mark.parametrize(
    ("device", "runtime"),
    [
        ("local/cpu", "onnxruntime"),
        ("local/cpu", "openvino"),
        ("local/cuda:0", "onnxruntime"),
        ("local/cuda:3", "onnxruntime-tensorrt"),
        ("local/cuda:0", "tensorrt"),
    ],
)
def test_pairs_that_can_run_are_taken(device: str, runtime: str) -> None:
    target = Target.model_validate({"device": device, "runtime": runtime})
    assert f"local/{target.local_device}" == device


@pytest.mark.parametrize(
    ("device", "agent", "there"),
    [
        ("local/cpu", None, "cpu"),
        ("local/cuda:1", None, "cuda:1"),
        ("agent/edge", "edge", "cpu"),
        ("agent/edge/cpu", "edge", "cpu"),
        ("agent/edge/cuda:0", "edge", "cuda:0"),
    ],
)
def test_a_device_says_whose_it_is(device: str, agent: str | None, there: str) -> None:
    target = Target(device=device)
    assert (target.agent, target.local_device) == (agent, there)


@pytest.mark.parametrize(
    ("device", "runtime", "message"),
    [
        ("agent/edge/cuda:0", "openvino", r"'openvino' cannot be used on 'cuda:0'"),
        ("agent/Edge", "onnxruntime", "pattern"),
        ("agent/edge/", "onnxruntime", "pattern"),
        ("local/cuda:0", "openvino", r"'openvino' cannot be used on 'cuda:0': it runs on cpu; choose onnxruntime, "),
        ("local/cpu", "tensorrt", r"'tensorrt' cannot be used on 'cpu': it runs on cuda; choose onnxruntime, openvino"),
        ("cuda:0", "onnxruntime", "pattern"),
        ("local/cuda", "onnxruntime", "pattern"),
        ("local/cuda:0\n", "onnxruntime", "pattern"),
        ("local/cpu", "abacus", "onnxruntime"),
    ],
)
def test_other_pairs_are_refused(device: str, runtime: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Target.model_validate({"device": device, "runtime": runtime})


def test_networks_are_timed_on_the_device_of_the_job() -> None:
    spec = JobSpec(model=MODEL, budget=Budget(fraction=0.5), target=Target(device="local/cuda:1"))
    assert timing_settings(spec).device == "cuda:1"


def test_the_processor_is_everywhere(agents: AgentStore) -> None:
    check_target(Target(), agents, "")


def test_a_device_that_the_server_has_not_breaks_a_precondition_and_the_others_are_named(
    agents: AgentStore,
) -> None:
    with pytest.raises(DeviceMissingError, match=r"no device 'local/cuda:99'; it has: local/cpu") as caught:
        check_target(Target(device="local/cuda:99"), agents, "spec.")
    status = to_status(caught.value)
    failure = error_details_pb2.PreconditionFailure()
    assert status.code == 9
    assert any(detail.Unpack(failure) for detail in status.details)
    assert failure.violations[0].type == "DEVICE_MISSING"


@pytest.mark.skipif(not list_gpus(), reason="no NVIDIA GPU on this machine")
def test_a_gpu_of_the_server_is_taken(agents: AgentStore) -> None:
    check_target(Target(device="local/cuda:0"), agents, "")
