"""`shoal measure` on real files, and what it says about files that are none."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.service.cli.command import shoal, shoal_here
from tests.service.cli.made import write_classifier, write_samples


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return write_classifier(tmp_path / "model.onnx")


def test_figures_are_those_of_a_report(classifier: Path) -> None:
    done = shoal("measure", classifier, "--seconds", "0.3", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert 0 < document["latency_ms"]["p50"] <= document["latency_ms"]["p99"]
    assert document["count"] >= 20
    assert (document["batch"], document["threads"], document["percentile"]) == (1, 1, 50)
    assert (document["baseline"], document["speedup"], document["accuracy"]) == (None, None, None)


def test_a_baseline_is_timed_too_and_compared(classifier: Path, tmp_path: Path) -> None:
    slower = write_classifier(tmp_path / "baseline.onnx", repeat=200)
    done = shoal("measure", classifier, "--baseline", slower, "--seconds", "0.5", "--json")
    document = json.loads(done.stdout)
    assert document["speedup"] > 2
    low, high = document["speedup_interval"]
    assert 1 < low <= high
    assert document["baseline"]["latency_ms"]["p50"] > document["latency_ms"]["p50"]


def test_accuracy_is_measured_on_samples(classifier: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "raw.json"
    recipe.write_text('{"raw": true}')
    flags = ["--data", write_samples(tmp_path / "test.npz"), "--preprocess", recipe]
    done = shoal("measure", classifier, *flags, "--seconds", "0.2")
    assert re.search(r"^  accuracy +66\.67 %\n  samples +9$", done.stdout, re.MULTILINE), done.stderr


def test_text_shows_both_files_side_by_side(classifier: Path) -> None:
    done = shoal("measure", classifier, "--baseline", classifier, "--seconds", "0.2", "--percentile", "p90")
    assert re.search(r"^ +baseline +file$", done.stdout, re.MULTILINE)
    assert re.search(r"^  p50 ms +[\d.]+ +[\d.]+$", done.stdout, re.MULTILINE)
    assert re.search(r"as fast as the baseline at p90 \(95 % interval", done.stdout)


def test_what_cannot_be_measured_exits_with_2_and_one_line(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(classifier.read_bytes()[:40])
    for arguments, message in (
        ((broken,), "broken.onnx"),
        ((classifier, "--percentile", "42"), "choose one of 50, 90, 95, 99"),
        ((classifier, "--runtime", "abacus"), "runtime 'abacus' cannot be used"),
        ((classifier, "--runtime", "tensorrt"), "'tensorrt' cannot be used on 'cpu': it runs on cuda"),
        ((classifier, "--device", "gpu"), "no device is called 'gpu'"),
        ((classifier, "--data", tmp_path / "nowhere"), "nowhere does not exist"),
        ((classifier, "--data", broken, "--mean", "0.5"), "mean has 1 values and std has 0"),
    ):
        done = shoal_here(capsys, "measure", *arguments)
        errors = [line for line in done.stderr.splitlines() if line.startswith("shoal: error: ")]
        assert (done.returncode, done.stdout, len(errors)) == (2, "", 1), done.stderr
        assert message in errors[0]
