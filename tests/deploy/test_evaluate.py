from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from deploy.artifact import Artifact
from deploy.errors import DataError, ModelFileError
from deploy.evaluate import evaluate, wilson
from tests.deploy.networks import Residual, Spec, write_direct

IMAGES = np.random.default_rng(0).standard_normal((50, 3, 8, 8)).astype(np.float32)


def batches(labels: np.ndarray, size: int = 16) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray]]:
    for start in range(0, len(labels), size):
        yield (IMAGES[start : start + size],), labels[start : start + size]


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose logits are its input, twelve of them."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["logits"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 12))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 12))],
    )
    path = tmp_path_factory.mktemp("identity") / "identity.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_the_count_equals_torch_with_a_partial_last_batch(artifact: Artifact, residual: Residual) -> None:
    labels = np.random.default_rng(1).integers(0, 3, 50)
    with torch.no_grad():
        wanted = int((residual(torch.from_numpy(IMAGES)).argmax(1).numpy() == labels).sum())
    accuracy = evaluate(artifact.path, batches(labels))
    assert (accuracy.correct, accuracy.n, accuracy.classes) == (wanted, 50, 3)
    assert accuracy.top1 == wanted / 50
    assert accuracy.ci_low < accuracy.top1 < accuracy.ci_high
    assert accuracy.top5 is None


def test_top5_and_ties_follow_argmax(identity: Path) -> None:
    logits = np.zeros((4, 12), np.float32)
    logits[0, 3] = 1.0  # label 3 is first
    logits[1, :4] = 1.0  # label 4 is fifth
    logits[2, :5] = 1.0  # label 5 is sixth
    # The last sample is a tie of all twelve, and argmax takes the first.
    accuracy = evaluate(identity, [((logits,), np.array([3, 4, 5, 1]))])
    assert (accuracy.correct, accuracy.top5) == (1, 3 / 4)


def test_outputs_that_are_no_numbers_count_as_wrong(identity: Path) -> None:
    logits = np.zeros((3, 12), np.float32)
    logits[:, 0] = 1.0
    logits[1, 5] = np.nan
    logits[2, 0] = np.inf
    accuracy = evaluate(identity, [((logits,), np.zeros(3, np.int64))])
    assert (accuracy.correct, accuracy.non_finite, accuracy.top5) == (1, 2, 1 / 3)


def test_the_number_of_threads_changes_nothing(artifact: Artifact) -> None:
    labels = np.random.default_rng(2).integers(0, 3, 50)
    one = evaluate(artifact.path, batches(labels), threads=1)
    assert one.correct == evaluate(artifact.path, batches(labels), threads=2).correct


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full(50, 3), r"labels go from 3 to 3, but the model knows classes 0 to 2"),
        (np.full(50, -1), r"labels go from -1 to -1"),
        (np.zeros(50), r"must be 16 whole numbers, .* float64"),
        (np.zeros((50, 1), np.int64), r"got shape \(16, 1\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(artifact: Artifact, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(artifact.path, batches(labels))


def test_images_of_another_shape_are_refused(artifact: Artifact) -> None:
    with pytest.raises(DataError, match=r"input 'image' wants shape \(batch, 3, 8, 8\) float32, got \(2, 3, 16, 16\)"):
        evaluate(artifact.path, [((np.zeros((2, 3, 16, 16), np.float32),), np.zeros(2, np.int64))])


def test_no_samples_are_refused(artifact: Artifact) -> None:
    with pytest.raises(DataError, match="no samples"):
        evaluate(artifact.path, [])


def test_an_output_that_is_no_classifier_is_refused(tmp_path: Path) -> None:
    path = write_direct(nn.Conv2d(3, 2, 1), Spec("x", (3, 8, 8)), tmp_path / "conv.onnx")
    with pytest.raises(DataError, match=r"shape \(batch, classes\), the model gives \(16, 2, 8, 8\)"):
        evaluate(path, batches(np.zeros(50, np.int64)))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no model file"):
        evaluate(tmp_path / "gone.onnx", batches(np.zeros(50, np.int64)))


# Newcombe 1998, Statistics in Medicine 17, table I, method 3.
@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(correct: int, n: int, low: float, high: float) -> None:
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)
