from __future__ import annotations

from pathlib import Path

import pytest

from service.registries import RefusedModelError
from service.registries.mlflow_model import find_model

yaml = pytest.importorskip("yaml")


def _model(root: Path, flavors: dict[str, object], *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    return root


@pytest.mark.parametrize(
    ("flavors", "files", "found"),
    [
        ({"onnx": {"data": "model.onnx"}}, ("model.onnx", "other.onnx"), "model.onnx"),
        ({"pytorch": {"model_data": "data"}}, ("data/model.pt2",), "data/model.pt2"),
        ({"transformers": {"model_binary": "model"}}, ("model/config.json", "model/a.safetensors"), "model"),
        ({"python_function": {}}, ("artifacts/net.pt2",), "artifacts/net.pt2"),
        ({"python_function": {}}, ("artifacts/m/config.json", "artifacts/m/a.safetensors"), "artifacts/m"),
    ],
)
def test_the_network_of_a_flavour_is_found(
    tmp_path: Path, flavors: dict[str, object], files: tuple[str, ...], found: str
) -> None:
    assert find_model(_model(tmp_path, flavors, *files)) == tmp_path / found


@pytest.mark.parametrize(
    ("flavors", "files", "message"),
    [
        ({"pytorch": {"model_data": "data"}}, ("data/model.pth",), r"pickled \(data/model.pth; flavour pytorch\)"),
        ({"sklearn": {}}, ("model.skops",), r"no network in it that can be read \(flavour sklearn; 2 files\)"),
        ({"python_function": {}}, ("a.onnx", "b.onnx"), r"holds 2 networks \(a.onnx, b.onnx\)"),
        ({"transformers": {"model_binary": "m"}}, ("m/config.json", "m/pytorch_model.bin"), "weights are pickled"),
        ({"onnx": {"data": "../../etc/net.onnx"}}, (), "names a file outside of the model"),
    ],
)
def test_what_cannot_be_opened_safely_is_refused(
    tmp_path: Path, flavors: dict[str, object], files: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RefusedModelError, match=message):
        find_model(_model(tmp_path, flavors, *files))
