"""What callers get for messages that nobody could have meant."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from protos.shoal.v1 import model_optimizer_pb2 as service_pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.server import create
from tests.service.server_harness import refusal, settings_for

BROKEN = b"\x0a\xff\xff\xff\xff\x0f"


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    server = create(settings_for(tmp_path))
    port = await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop()


def spec_request(spec: job_pb.OptimizationJobSpec) -> bytes:
    job = job_pb.OptimizationJob(spec=spec)
    return service_pb.CreateOptimizationJobRequest(optimization_job=job).SerializeToString()


@pytest.mark.parametrize("method", ["GetOptimizationJob", "CreateOptimizationJob", "AnalyzeModel"])
async def test_bytes_that_are_no_message_are_the_callers_fault(channel: grpc.aio.Channel, method: str) -> None:
    refused = await refusal(channel.unary_unary(f"/shoal.v1.ModelOptimizer/{method}")(BROKEN))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refused.fields.keys() == {"request"}


async def test_so_are_bytes_in_a_stream_of_messages(channel: grpc.aio.Channel) -> None:
    async def messages() -> AsyncIterator[bytes]:
        yield BROKEN

    refused = await refusal(channel.stream_unary("/shoal.v1.ModelOptimizer/UploadArtifact")(messages()))

    assert (refused.code, refused.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "spec",
    [
        job_pb.OptimizationJobSpec(time_limit={"seconds": 1, "nanos": -1}),
        job_pb.OptimizationJobSpec(time_limit={"seconds": 2**62}),
        job_pb.OptimizationJobSpec(strategy={"options": {"fields": {"x": {"number_value": float("nan")}}}}),
    ],
    ids=["signs differ", "too long", "no number"],
)
async def test_values_that_json_cannot_hold_are_the_callers_fault(
    channel: grpc.aio.Channel, spec: job_pb.OptimizationJobSpec
) -> None:
    call = channel.unary_unary("/shoal.v1.ModelOptimizer/CreateOptimizationJob")
    refused = await refusal(call(spec_request(spec)))

    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields.keys() == {"spec"}


async def test_a_refusal_of_much_fits_into_the_trailers(channel: grpc.aio.Channel) -> None:
    names = {f"{number}-" + "é" * 400: "x" for number in range(200)}
    spec = job_pb.OptimizationJobSpec(model={"pt2_artifact": "é" * 9000})
    spec.strategy.name = "é" * 9000
    for name in names:
        spec.strategy.options[name] = "x"
    call = channel.unary_unary("/shoal.v1.ModelOptimizer/CreateOptimizationJob")
    refused = await refusal(call(spec_request(spec)))

    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields
