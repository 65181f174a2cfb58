from __future__ import annotations

from pathlib import Path

import numpy as np

from deploy.artifact import Artifact, copy_model, hash_model
from deploy.modelfile import open_model, weight_files
from deploy.runtimes import SessionSettings, find_runtime

BATCH = np.ones((2, 3, 8, 8), np.float32)


def outputs(path: Path) -> np.ndarray:
    return np.asarray(find_runtime("onnxruntime").load(path, SessionSettings()).run([BATCH])[0])


def test_a_copy_with_weights_beside_it_is_the_same_model(large_copy: Path) -> None:
    copy = large_copy.with_name("copy.onnx")
    copy_model(large_copy, copy)
    assert hash_model(copy) == hash_model(large_copy)
    assert weight_files(open_model(copy)) == ("large.onnx.data",)
    np.testing.assert_array_equal(outputs(copy), outputs(large_copy))


def test_a_copy_leaves_nothing_of_what_was_there(artifact: Artifact, large_copy: Path) -> None:
    """A candidate that is not shipped may have had weights beside it."""
    copy_model(artifact.path, large_copy)
    assert hash_model(large_copy) == (artifact.sha256, artifact.size_bytes)
    assert weight_files(open_model(large_copy)) == ()
