"""What the fuzz tests take for fit for a user, and what not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.fuzz.judge import unfit
from benchmarks.service.judging import Findings, Judge
from protos.shoal.v1 import optimization_job_pb2 as job_pb

GOOD = "the first line of data is no JSON (Expecting value); write one object to a line"


def ended(state: str, reason: str = "BAD_DATA", blame: str = "caller", message: str = GOOD) -> job_pb.OptimizationJob:
    error = job_pb.JobError(reason=reason, blame=blame, message=message)
    return job_pb.OptimizationJob(state=job_pb.OptimizationJob.State.Value(state), error=error)


def judged(job: job_pb.OptimizationJob, state_dir: Path) -> list[str]:
    findings = Findings()
    Judge(state_dir, findings).end(job, [], "good.pt2 and data")
    return list(findings.kinds)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        (GOOD, []),
        (" ", ["empty"]),
        ("x" * 3000, ["long"]),
        ("found a\u202eb", ["unprintable"]),
        ("cannot read /var/state/x", ["path"]),
        (f"{sys.prefix}/lib", ["path"]),
        ("cannot identify <_io.BytesIO object at 0x7fe8ee07c810>", ["internal"]),
        ("panicked at src/models/bpe.rs:12", ["internal"]),
        ("CRC check failed 0x36947f21 != 0x2ab23041", []),
    ],
)
def test_what_a_user_may_see(message: str, wrong: list[str]):
    assert unfit(message, ["/var/state"]) == wrong


def test_a_refusal_with_a_documented_reason_is_a_right_end(tmp_path: Path):
    assert judged(ended("STATE_FAILED"), tmp_path) == []
    assert judged(ended("STATE_EXPIRED", "TIME_LIMIT"), tmp_path) == []
    assert judged(ended("STATE_FAILED", "WORKER_MEMORY", "machine"), tmp_path) == []


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (ended("STATE_FAILED", "NO_SUCH_REASON"), "which is not documented"),
        (ended("STATE_FAILED", blame="somebody"), "which is not documented"),
        (ended("STATE_FAILED", "INTERNAL", "shoal"), "INTERNAL by shoal"),
        (ended("STATE_FAILED", "WORKER_DIED", "machine"), "WORKER_DIED by machine"),
        (ended("STATE_FAILED", message="a\nb"), "a message that is unprintable"),
        (job_pb.OptimizationJob(state=job_pb.OptimizationJob.State.STATE_FAILED), "without an error"),
    ],
)
def test_what_is_a_wrong_end(tmp_path: Path, job: job_pb.OptimizationJob, said: str):
    (found,) = judged(job, tmp_path)
    assert said in found


def test_a_job_that_tells_of_the_server_s_folder_is_a_wrong_end(tmp_path: Path):
    job = job_pb.OptimizationJob(state=job_pb.OptimizationJob.State.STATE_SUCCEEDED)
    job.progress.message = f"reading {tmp_path}/in/x"
    assert judged(job, tmp_path) == [f"a job tells of {tmp_path}"]
