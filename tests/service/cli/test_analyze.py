"""What `shoal analyze` says of precisions; the rest is asked of a real server in `test_jobs.py`."""

from __future__ import annotations

from protos.shoal.v1 import model_optimizer_pb2 as pb
from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.cli.analyze import as_json, text


def found(*precisions: pb.PrecisionFloor) -> pb.AnalyzeModelResponse:
    floor = pb.FloorEstimate(
        baseline_ms=2.0, floor_ms=0.5, precision=job_pb.PRECISION_INT8, precisions=precisions, elapsed={"seconds": 3}
    )
    return pb.AnalyzeModelResponse(parameters=5, floor=floor)


PLAIN = pb.PrecisionFloor(
    precision=job_pb.PRECISION_FP32, computes=job_pb.PRECISION_FP32, original_ms=2.0, floor_ms=0.8
)
HALF = pb.PrecisionFloor(precision=job_pb.PRECISION_FP16, computes=job_pb.PRECISION_FP32, original_ms=2.1, floor_ms=0.9)
BRAIN = pb.PrecisionFloor(precision=job_pb.PRECISION_BF16, computes=job_pb.PRECISION_BF16, refusal="no kernels")
INT8 = pb.PrecisionFloor(precision=job_pb.PRECISION_INT8, computes=job_pb.PRECISION_INT8, original_ms=1.2, floor_ms=0.5)


def test_every_precision_has_a_line() -> None:
    lines = text(found(PLAIN, HALF, BRAIN, INT8), "net.pt2").splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("Floor:"))
    assert lines[at].startswith("Floor: 0.500 ms in int8 of 2.00 ms (0.25x) if all that can go went;")
    assert [line.split() for line in lines[at + 2 : -1]] == [
        ["PRECISION", "UNCUT", "FLOOR"],
        ["fp32", "2.00", "ms", "0.800", "ms"],
        ["fp16", "2.10", "ms", "0.900", "ms", "computed", "in", "fp32", "here"],
        ["bf16", "-", "-", "no", "kernels"],
        ["int8", "1.20", "ms", "0.500", "ms"],
    ]
    assert lines[-1] == "Whether a precision is good enough takes samples to tell; a job does."


def test_json_has_the_same() -> None:
    floor = as_json(found(PLAIN, BRAIN))["floor"]
    assert floor["precision"] == "int8"
    assert floor["precisions"] == [
        {"precision": "fp32", "computes": "fp32", "original_ms": 2.0, "floor_ms": 0.8, "refusal": None},
        {"precision": "bf16", "computes": "bf16", "original_ms": None, "floor_ms": None, "refusal": "no kernels"},
    ]


def test_servers_that_say_nothing_of_precisions_know_fp32() -> None:
    older = pb.AnalyzeModelResponse(floor=pb.FloorEstimate(baseline_ms=2.0, floor_ms=0.5))
    assert "Floor: 0.500 ms of 2.00 ms (0.25x)" in text(older, "net.pt2")
    assert as_json(older)["floor"]["precision"] is None
