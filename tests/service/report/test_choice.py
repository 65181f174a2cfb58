from __future__ import annotations

from google.protobuf.json_format import ParseDict

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.convert import result_fields
from service.report.choice import is_returned, passed_over
from service.report.schema import PrecisionTrialReport, Report
from tests.service.report import made
from tests.service.report.test_precision import in_int8, trial


def reasons(report: Report) -> dict[str, str]:
    return {each.precision: passed_over(each, report) for each in report.precisions}


def tried(*trials: PrecisionTrialReport) -> Report:
    """Returns a report whose result is in the precision of the trial that was chosen."""
    chosen = next(each.precision for each in trials if each.chosen)
    report = in_int8()
    assert report.result.precision is not None
    precision = report.result.precision.model_copy(update={"precision": chosen})
    result = report.result.model_copy(update={"precision": precision})
    return report.model_copy(update={"precisions": trials, "result": result})


def test_what_could_not_ship_says_its_refusal_and_what_was_slower_by_how_much() -> None:
    report = in_int8()
    assert [is_returned(each, report) for each in report.precisions] == [False, False, True]
    assert reasons(report) == {
        "float32": "it takes 1.50x the time of int8",
        "bfloat16": "no <kernels> for it",
        "int8": "",
    }


def test_what_is_a_little_faster_than_float32_is_within_what_auto_takes_for_equal() -> None:
    report = tried(trial("float32", speedup=1.5, chosen=True), trial("float16", speedup=1.515))
    assert reasons(report) == {
        "float32": "",
        "float16": "it has 1.01x the speed of float32, which is within 2 % of it",
    }


def test_float32_that_is_a_little_faster_yields_to_what_was_asked_for() -> None:
    report = tried(trial("float32", speedup=1.515), trial("int8", speedup=1.5, chosen=True))
    assert reasons(report)["float32"] == "int8 was asked for and is no more than 2 % slower"


def test_where_the_original_is_returned_no_trial_is() -> None:
    report = made.unimproved().model_copy(update={"precisions": in_int8().precisions})
    assert [is_returned(each, report) for each in report.precisions] == [False] * 3
    assert reasons(report) == {"float32": "", "bfloat16": "no <kernels> for it", "int8": ""}


def test_the_api_has_all_of_it() -> None:
    choice = ParseDict(result_fields(in_int8(), []), job_pb.OptimizationResult()).precision
    assert (choice.returned, choice.computes) == (job_pb.PRECISION_INT8, job_pb.PRECISION_INT8)
    plain, missing, best = choice.tried
    assert (plain.precision, plain.latency_ms, plain.returned) == (job_pb.PRECISION_FP32, 0.9, False)
    assert (missing.HasField("latency_ms"), missing.passed_over) == (False, "no <kernels> for it")
    assert (best.returned, best.passed_over, best.speedup) == (True, "", 1.5)


def test_a_report_that_says_nothing_of_precisions_leaves_it_open() -> None:
    result = ParseDict(result_fields(made.report(), []), job_pb.OptimizationResult())
    assert not result.HasField("precision")
