from __future__ import annotations

import json

from google.protobuf.json_format import ParseDict

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.batch.outcome import from_job
from service.cli import outcome
from service.convert import result_fields
from tests.service.cli.test_outcome import finished
from tests.service.report.test_precision import in_int8


def quantised() -> job_pb.OptimizationJob:
    job = finished()
    job.spec.target.precision = job_pb.PRECISION_AUTO
    job.result.precision.CopyFrom(ParseDict(result_fields(in_int8(), []), job_pb.OptimizationResult()).precision)
    return job


def test_text_says_which_precision_is_returned_and_why_not_the_others() -> None:
    lines = outcome.text(quantised()).splitlines()
    assert "  precision         fp32        int8   auto was asked for" in lines
    at = lines.index("Precisions that were tried:")
    assert lines[at + 1 : at + 4] == [
        "  fp32          0.900 ms       1.00x   it takes 1.50x the time of int8",
        "  bf16                 -           -   no <kernels> for it",
        "  int8          0.600 ms       1.50x   returned",
    ]


def test_json_has_the_same_as_data() -> None:
    document = outcome.as_json(quantised())["precision"]
    assert (document["asked"], document["returned"], document["computes"]) == ("auto", "int8", "int8")
    assert [(each["precision"], each["returned"], each["latency_ms"]) for each in document["tried"]] == [
        ("fp32", False, 0.9),
        ("bf16", False, None),
        ("int8", True, 0.6),
    ]
    json.dumps(document, allow_nan=False)


def test_where_only_fp32_may_ship_there_is_one_line() -> None:
    job = finished()
    job.result.precision.returned = job.result.precision.computes = job_pb.PRECISION_FP32
    text = outcome.text(job)
    assert "  precision         fp32        fp32\n" in text
    assert "Precisions that were tried" not in text


def test_what_is_only_stored_in_half_precision_says_so() -> None:
    job = finished()
    job.spec.target.precision = job.result.precision.returned = job_pb.PRECISION_FP16
    job.result.precision.computes = job_pb.PRECISION_FP32
    assert "  precision         fp32        fp16   computed in fp32 here\n" in outcome.text(job)


def test_results_of_older_servers_say_nothing() -> None:
    assert outcome.as_json(finished())["precision"] is None
    assert "precision" not in outcome.text(finished())


def test_the_record_of_a_batch_keeps_it() -> None:
    found = from_job(quantised()).precision
    assert found is not None
    assert (found.asked, found.returned, [each.passed_over for each in found.tried]) == (
        "auto",
        "int8",
        ["it takes 1.50x the time of int8", "no <kernels> for it", None],
    )
