from __future__ import annotations

from pathlib import Path

from deploy.artifact import Artifact, hash_model
from deploy.precision.half import convert_half
from deploy.precision.written import describe_converted


def test_a_converted_file_is_described_as_it_lies_there(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    found = describe_converted(artifact, path, convert_half(artifact.path, path, "bfloat16"))
    assert (found.sha256, found.size_bytes) == hash_model(path)
    assert (found.precision, found.opset, found.path) == ("bfloat16", 22, path)
    assert (found.inputs, found.outputs) == (artifact.inputs, artifact.outputs)
    assert found.producers.keys() >= {*artifact.producers, "onnxruntime"}
