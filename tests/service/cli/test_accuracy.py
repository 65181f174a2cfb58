from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.cli.accuracy import Question, score
from service.cli.errors import InputError
from service.spec import Preprocessing
from tests.service.cli.made import write_classifier, write_samples

RAW = Preprocessing(raw=True)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return write_classifier(tmp_path / "model.onnx")


def test_every_file_is_scored_on_the_same_samples(classifier: Path, tmp_path: Path) -> None:
    files = (classifier, write_classifier(tmp_path / "baseline.onnx", repeat=2))
    found = score(Question(files, write_samples(tmp_path / "test.npz"), RAW, "onnxruntime"))
    assert [(each.correct, each.n) for each in found] == [(6, 9), (6, 9)]


def test_samples_are_prepared_as_the_report_beside_the_file_says(classifier: Path, tmp_path: Path) -> None:
    preprocessing = {"sample_shape": [3], "raw": True, "origin": {"raw": "job"}}
    (tmp_path / "report.json").write_text(json.dumps({"data": {"preprocessing": preprocessing}}))
    (found,) = score(Question((classifier,), write_samples(tmp_path / "test.npz"), None, "onnxruntime"))
    assert found.correct == 6


@pytest.mark.parametrize("report", [None, "{", "{}", '{"data": null}', '{"data": {"preprocessing": {"origin": 3}}}'])
def test_without_a_report_the_defaults_hold(classifier: Path, tmp_path: Path, report: str | None) -> None:
    if report is not None:
        (tmp_path / "report.json").write_text(report)
    with pytest.raises(InputError, match="no image"):  # the default recipe is for images
        score(Question((classifier,), write_samples(tmp_path / "test.npz"), None, "onnxruntime"))


def test_samples_without_labels_are_refused(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="without labels"):
        score(Question((classifier,), write_samples(tmp_path / "test.npz", labelled=False), RAW, "onnxruntime"))


def test_samples_that_are_not_there_are_refused(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        score(Question((classifier,), tmp_path / "nowhere", RAW, "onnxruntime"))


def test_what_is_no_data_is_refused(classifier: Path) -> None:
    with pytest.raises(InputError, match=r"model\.onnx"):
        score(Question((classifier,), classifier, RAW, "onnxruntime"))
