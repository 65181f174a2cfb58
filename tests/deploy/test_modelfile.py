from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from deploy import modelfile
from deploy.artifact import Artifact
from deploy.errors import ModelFileError
from deploy.modelfile import open_model


def test_a_good_file_opens(artifact: Artifact) -> None:
    assert open_model(artifact.path).graph.output[0].name == "logits"


def test_weights_beside_the_file_are_allowed(large_copy: Path) -> None:
    path = large_copy
    assert open_model(path).graph.node
    for place in ("/etc/passwd", "../secret", "sub/../../secret", "C:\\secret"):
        model = onnx.load(path, load_external_data=False)
        model.graph.initializer[0].external_data[0].value = place
        hostile = path.with_name("hostile.onnx")
        hostile.write_bytes(model.SerializeToString())
        with pytest.raises(ModelFileError, match="only files in its own folder"):
            open_model(hostile)


def test_a_link_out_of_the_folder_is_refused(large_copy: Path) -> None:
    path = large_copy
    beside, outside = path.with_name("large.onnx.data"), path.with_name("elsewhere")
    beside.rename(outside)
    beside.symlink_to(outside)
    with pytest.raises(ModelFileError, match="only files in its own folder"):
        open_model(path)


def test_missing_weights_are_told(large_copy: Path) -> None:
    path = large_copy
    path.with_name("large.onnx.data").unlink()
    with pytest.raises(ModelFileError, match="not a valid ONNX model"):
        open_model(path)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04 zip", b"hello world"])
def test_other_content_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"'other\.onnx' is not an ONNX"):
        open_model(path)


def test_a_truncated_file_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(artifact.path.read_bytes()[:-200])
    with pytest.raises(ModelFileError, match=r"cut\.onnx"):
        open_model(path)


def test_an_unknown_operator_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    model = onnx.load(artifact.path)
    model.graph.node[0].op_type = "Teleport"
    path = tmp_path / "odd.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match="Teleport"):
        open_model(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file"):
        open_model(tmp_path / "gone.onnx")
    with pytest.raises(ModelFileError, match="directory"):
        open_model(tmp_path)


def test_a_huge_file_is_refused_before_it_is_read(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelfile, "MAX_BYTES", 10)
    with pytest.raises(ModelFileError, match="at most 10 are read"):
        open_model(artifact.path)
