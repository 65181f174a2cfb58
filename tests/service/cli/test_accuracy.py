from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.cli.accuracy import Question, score
from service.cli.errors import InputError
from service.data import Columns
from service.judging.scoring import FileScore
from service.spec import Preprocessing
from tests.service.cli.made import write_classifier, write_samples, write_text_classifier
from tests.service.data.made import WORDS, write_tokenizer

RAW = Preprocessing(raw=True)


def right(found: FileScore) -> tuple[int, int]:
    """Returns how many samples are right, and how many there are."""
    assert found.accuracy is not None
    return found.accuracy.correct, found.accuracy.n


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    return write_classifier(tmp_path / "model.onnx")


def test_every_file_is_scored_on_the_same_samples(classifier: Path, tmp_path: Path) -> None:
    files = (classifier, write_classifier(tmp_path / "baseline.onnx", repeat=2))
    found = score(Question(files, write_samples(tmp_path / "test.npz"), RAW, "onnxruntime"))
    assert [right(each) for each in found] == [(6, 9), (6, 9)]


def test_samples_are_prepared_as_the_report_beside_the_file_says(classifier: Path, tmp_path: Path) -> None:
    preprocessing = {"sample_shape": [3], "raw": True, "origin": {"raw": "job"}}
    (tmp_path / "report.json").write_text(json.dumps({"data": {"preprocessing": preprocessing}}))
    (found,) = score(Question((classifier,), write_samples(tmp_path / "test.npz"), None, "onnxruntime"))
    assert right(found) == (6, 9)


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


def test_texts_are_scored_with_the_tokenizer_of_the_model_s_folder(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("phrase,verdict\ngood film,1\nbad film,0\na film,1\nvery good,1\n")
    model = write_text_classifier(tmp_path / "model.onnx", len(WORDS))
    columns = Columns(("phrase",), label="verdict")
    question = Question((model,), tmp_path / "val.csv", None, "onnxruntime", columns)
    with pytest.raises(InputError, match="there is no tokenizer"):
        score(question)
    (found,) = score(replace(question, tokenizer=write_tokenizer(tmp_path / "bert")))
    assert right(found) == (3, 4)


def test_ready_inputs_are_scored_by_name(tmp_path: Path) -> None:
    model = write_text_classifier(tmp_path / "model.onnx", len(WORDS))
    ids = np.array([[4] * 6, [5] * 6, [5, 4, 5, 5, 5, 5]])
    mask = np.array([[1] * 6, [1] * 6, [1, 0, 1, 1, 1, 1]])
    np.savez(tmp_path / "val.npz", input_ids=ids, attention_mask=mask, labels=[1, 0, 0])
    (found,) = score(Question((model,), tmp_path / "val.npz", None, "onnxruntime"))
    assert right(found) == (3, 3)
