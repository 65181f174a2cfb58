from __future__ import annotations

import json

import pytest

from protos.shoal.v1 import optimization_job_pb2 as job_pb
from service.cli import outcome
from service.cli.errors import Status

Job = job_pb.OptimizationJob
Result = job_pb.OptimizationResult


def facts(milliseconds: float, accuracy: float | None) -> job_pb.NetworkFacts:
    network = job_pb.NetworkFacts(sha256="ab", parameters=272_474, macs=41_000_000, depth=20)
    network.latency.CopyFrom(
        job_pb.Latency(p50_ms=milliseconds, p90_ms=1.1 * milliseconds, p99_ms=1.5 * milliseconds, count=1000)
    )
    if accuracy is not None:
        network.accuracy.CopyFrom(job_pb.Accuracy(top1=accuracy, low=accuracy - 0.01, high=accuracy + 0.01, count=500))
    return network


def finished(result: Result.Outcome.ValueType = Result.OUTCOME_BUDGET_MET, accuracy: float | None = 0.9) -> Job:
    job = Job(name="optimizationJobs/fast", state=Job.STATE_SUCCEEDED, display_name="net.pt2")
    job.spec.budget.fraction = 0.5
    job.start_time.seconds, job.end_time.seconds = 100, 184
    job.result.CopyFrom(
        Result(
            outcome=result,
            explanation="1.00 ms at p50 is within 1.00 ms.",
            baseline=facts(2.0, accuracy),
            result=facts(1.0, accuracy),
            speedup=2.0,
            speedup_low=1.96,
            speedup_high=2.04,
            budget_ms=1.0,
            artifacts=[
                job_pb.ArtifactLink(name="artifacts/m", filename="model.onnx"),
                job_pb.ArtifactLink(name="artifacts/b", filename="baseline.onnx"),
            ],
        )
    )
    return job


def failed(blame: str) -> Job:
    job = Job(name="optimizationJobs/bad", state=Job.STATE_FAILED)
    job.error.reason, job.error.message, job.error.blame = "UNSAFE_MODEL", "the file holds a pickle", blame
    return job


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (finished(), Status.DONE),
        (finished(Result.OUTCOME_BUDGET_NOT_MET), Status.BUDGET_NOT_MET),
        (finished(Result.OUTCOME_NO_IMPROVEMENT), Status.BUDGET_NOT_MET),
        (failed("caller"), Status.USAGE),
        (failed("machine"), Status.FAILED),
        (failed("shoal"), Status.FAILED),
        (Job(state=Job.STATE_CANCELLED), Status.FAILED),
        (Job(state=Job.STATE_EXPIRED), Status.FAILED),
    ],
)
def test_exit_status(job: Job, status: Status) -> None:
    assert outcome.exit_status(job) is status


def test_json_holds_what_is_promised() -> None:
    document = outcome.as_json(finished(), {"model.onnx": "out/model.onnx"})
    assert (document["state"], document["outcome"], document["speedup"]) == ("SUCCEEDED", "BUDGET_MET", 2.0)
    assert document["seconds"] == 84
    assert document["baseline"]["latency_ms"] == {"p50": 2.0, "p90": 2.2, "p99": 3.0}
    assert document["result"]["accuracy"] == 0.9
    assert document["artifacts"] == {"model.onnx": "out/model.onnx"}
    json.dumps(document, allow_nan=False)


def test_json_without_labels_has_no_accuracy() -> None:
    document = outcome.as_json(finished(accuracy=None))
    assert document["result"]["accuracy"] is None
    assert document["artifacts"] == {"model.onnx": "artifacts/m", "baseline.onnx": "artifacts/b"}


def test_json_of_a_failure_says_why() -> None:
    document = outcome.as_json(failed("caller"))
    assert document["error"] == {"reason": "UNSAFE_MODEL", "message": "the file holds a pickle", "blame": "caller"}
    assert (document["outcome"], document["speedup"], document["result"], document["seconds"]) == (None,) * 4


def test_text_shows_before_and_after_and_how_to_measure_again() -> None:
    text = outcome.text(finished(), {"model.onnx": "a b/model.onnx", "baseline.onnx": "a b/baseline.onnx"})
    assert text.startswith("1.00 ms at p50 is within 1.00 ms. (1 min 24 s)\n")
    assert "p50 ms           2.000       1.000   2.00x as fast (95 % interval 1.96 to 2.04)" in text
    assert "+0.00 points on 500 samples" in text
    assert text.endswith(
        "shoal measure 'a b/model.onnx' --baseline 'a b/baseline.onnx' --batch 1 --threads 1 --percentile 50"
    )


def test_the_command_that_measures_again_names_another_runtime() -> None:
    paths = {"model.onnx": "out/model.onnx", "baseline.onnx": "out/baseline.onnx"}
    other = job_pb.OptimizationJob()
    other.spec.target.runtime = "openvino"
    assert outcome.measure_command(other, paths).endswith(" --runtime openvino")
    assert "--runtime" not in outcome.measure_command(job_pb.OptimizationJob(), paths)


def test_text_says_the_outcome_where_the_server_explains_nothing() -> None:
    job = finished(Result.OUTCOME_NO_IMPROVEMENT)
    job.result.explanation = ""
    assert outcome.text(job).startswith("No improvement; the original network is returned. (1 min 24 s)\n")


def test_text_marks_the_percentile_that_counts() -> None:
    job = finished()
    job.spec.budget.percentile = 99
    speedup = next(line for line in outcome.text(job).splitlines() if "as fast" in line)
    assert speedup.split()[0] == "p99"


def test_text_of_a_failure_is_its_reason() -> None:
    assert outcome.text(failed("caller")) == "Failed: the file holds a pickle [UNSAFE_MODEL]"


def test_text_of_a_running_job_is_its_progress() -> None:
    job = Job(state=Job.STATE_RUNNING)
    job.progress.phase, job.progress.fraction, job.progress.message = "plan", 0.4, "fitting layer1"
    assert outcome.text(job) == "Running: 40 %, plan: fitting layer1"
