from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import pytest

from compressors.errors import UnsafeModelError
from compressors.sources import ModelSource
from compressors.sources.tokenizer import copy_tokenizer

NAMES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "config.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "m"
    (place / "deep/er").mkdir(parents=True)
    for name in NAMES:
        (place / name).write_text(f"of {name}")
    (place / "model.safetensors").write_text("weights")
    (place / "evil.py").write_text("raise SystemExit")
    (place / "deep/er/merges.txt").write_text("another model's")
    return place


def copied(source: ModelSource, tmp_path: Path) -> dict[str, str]:
    out = tmp_path / "out"
    out.mkdir()
    copy_tokenizer(source, out)
    return {path.name: path.read_text() for path in out.iterdir() if path.is_file()}


WANTED = {name: f"of {name}" for name in NAMES}


def test_a_folder_s_tokenizer_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    assert copied(ModelSource("folder", folder), tmp_path) == WANTED


@pytest.mark.parametrize("kind", ["folder", "onnx"])
@pytest.mark.parametrize("suffix", ["zip", "tar"])
@pytest.mark.parametrize("top", ["", "m/"])
def test_an_archive_s_tokenizer(folder: Path, tmp_path: Path, kind: str, suffix: str, top: str) -> None:
    archive = tmp_path / f"m.{suffix}"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as out:
            for path in files:
                out.write(path, top + str(path.relative_to(folder)))
    else:
        with tarfile.open(archive, "w") as tar:
            for path in files:
                tar.add(path, top + str(path.relative_to(folder)))
    assert copied(ModelSource(kind, archive), tmp_path) == WANTED  # type: ignore[arg-type]


def test_an_archive_that_climbs_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as out:
        out.writestr("../tokenizer.json", "{}")
    with pytest.raises(UnsafeModelError):
        copied(ModelSource("folder", tmp_path / "m.zip"), tmp_path)


def test_models_that_bring_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "net.pt2").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "net.onnx").write_bytes(b"\x08\x07")
    for number, source in enumerate(
        (
            ModelSource("pt2", tmp_path / "net.pt2"),
            ModelSource("onnx", tmp_path / "net.onnx"),
            ModelSource("named", name="timm:resnet18"),
            ModelSource("named", name="transformers:bert"),
        )
    ):
        (tmp_path / str(number)).mkdir()
        assert copied(source, tmp_path / str(number)) == {}
