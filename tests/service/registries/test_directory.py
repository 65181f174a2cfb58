from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from service.registries import RegistryError, Selection, open_registry
from service.registries.directory import DirectoryRegistry
from service.registries.huggingface import HuggingFaceRegistry
from service.registries.manifest import ManifestRegistry
from service.registries.mlflow import MlflowOptions


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def _names(root: Path, pattern: str = "*") -> list[str]:
    return [entry.name for entry in DirectoryRegistry(root, pattern).models()]


def test_models_are_found_by_their_names_in_folders_of_any_depth(tmp_path: Path) -> None:
    _touch(tmp_path, "a.pt2", "deep/b.onnx", "deep/notes.txt", ".hidden/c.onnx", "saved/config.json")
    _touch(tmp_path, "saved/model.safetensors", "saved/unet/x.onnx")
    assert _names(tmp_path) == ["a.pt2", "deep", "saved"]
    assert _names(tmp_path, "s*") == ["saved"]


def test_an_onnx_file_alone_goes_by_its_own_name(tmp_path: Path) -> None:
    _touch(tmp_path, "nets/b.onnx", "nets/c.onnx")
    assert _names(tmp_path) == ["nets/b.onnx", "nets/c.onnx"]


def test_archives_of_data_are_no_models(tmp_path: Path) -> None:
    for name, inside in (("model.zip", "net.onnx"), ("data.zip", "train/cat/1.png")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(inside, b"x")
    assert _names(tmp_path) == ["model.zip"]


def test_what_shoal_wrote_is_passed_over(tmp_path: Path) -> None:
    _touch(tmp_path, "net.onnx", "out/batch.jsonl", "out/net-1/model.onnx", "fetched/model.onnx")
    _touch(tmp_path, "fetched/manifest.json", "fetched/plan.json")
    assert _names(tmp_path) == ["net.onnx"]


def test_pickled_weights_are_refused_and_say_what_to_do(tmp_path: Path) -> None:
    _touch(tmp_path, "net.pth")
    (entry,) = DirectoryRegistry(tmp_path).models()
    assert entry.refusal is not None
    assert "torch.export.save" in entry.refusal


def test_hugging_face_folders_and_caches_are_read(tmp_path: Path) -> None:
    config = json.dumps({"model_type": "bert"}).encode()
    for folder in ("own/bert", "models--org--vit/snapshots/abc", "models--org--vit/snapshots/old"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_bytes(config)
    (tmp_path / "models--org--vit/refs").mkdir()
    (tmp_path / "models--org--vit/refs/main").write_text("abc")
    found = HuggingFaceRegistry(str(tmp_path)).models()
    assert [(entry.name, entry.version) for entry in found] == [("org/vit", "abc"), ("own/bert", "")]


def test_a_folder_that_brings_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "code.Net"}}))
    (entry,) = HuggingFaceRegistry(str(tmp_path)).models()
    assert entry.refusal is not None
    assert "never run" in entry.refusal


def test_a_name_on_the_hub_is_left_to_the_server() -> None:
    (entry,) = HuggingFaceRegistry("google/vit-base").models()
    assert (entry.place, entry.settings.pretrained) == ("transformers:google/vit-base", True)


def test_sources_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text('{"models": [{"model": "a.onnx"}]}')
    kinds = {
        str(tmp_path): DirectoryRegistry,
        f"dir:{tmp_path}": DirectoryRegistry,
        f"hf:{tmp_path}": HuggingFaceRegistry,
        str(tmp_path / "models.json"): ManifestRegistry,
        f"manifest:{tmp_path / 'models.json'}": ManifestRegistry,
    }
    for source, kind in kinds.items():
        assert isinstance(open_registry(source, Selection(), MlflowOptions()), kind)


@pytest.mark.parametrize(
    ("source", "selection", "message"),
    [
        ("s3:bucket", Selection(), "there is no registry 's3'; write a path, or one of mlflow, hf, dir, manifest"),
        ("hf:", Selection(), "hf: names nothing; write hf:PATH"),
        ("dir:models", Selection(alias="champion"), "--alias, --stage and --tag tell MLflow's versions apart"),
    ],
)
def test_a_source_that_means_nothing_is_refused(source: str, selection: Selection, message: str) -> None:
    with pytest.raises(RegistryError, match=message.replace("(", r"\(")):
        open_registry(source, selection, MlflowOptions())
