from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.delivery import manifest
from service.delivery.manifest import FILENAME, DeviceEntry, Manifest, ManifestError, check_filename, read_manifest


def change(folder: Path, **fields: Any) -> None:
    document = json.loads((folder / FILENAME).read_bytes())
    (folder / FILENAME).write_text(json.dumps({**document, **fields}))


def test_it_survives_being_written_and_read(delivered: Path) -> None:
    found = read_manifest(delivered)
    assert Manifest.model_validate_json(found.model_dump_json()) == found
    assert found.digests["model.onnx"].size_bytes == (delivered / "model.onnx").stat().st_size


def test_fields_of_a_later_minor_version_are_passed_over(folder: Path) -> None:
    change(folder, schema_version="1.7", more=[1])
    assert read_manifest(folder).schema_version == "1.7"


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "/etc/passwd", "C:\\x", "\\\\host\\x", "a\\..\\x", "~/x", ".."],
)
def test_a_name_that_leaves_the_folder_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="leaves the folder"):
        check_filename(name)
    entry = {"filename": name, "sha256": "0" * 64, "size_bytes": 1}
    change(folder, files=[*json.loads((folder / FILENAME).read_bytes())["files"], entry])
    with pytest.raises(ManifestError, match="leaves the folder"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["", ".hidden", "-rf", "a/b", "a\nb", "x" * 300, "a\x1b[2J"])
def test_a_name_that_is_no_plain_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no plain file name"):
        check_filename(name)


@pytest.mark.parametrize("field", ["filename", "weights"])
def test_the_models_files_are_held_to_the_same_rule(folder: Path, field: str) -> None:
    model = json.loads((folder / FILENAME).read_bytes())["model"]
    change(folder, model={**model, field: "../x" if field == "filename" else ["../x"]})
    with pytest.raises(ManifestError, match=rf"model.{field}: '../x' leaves the folder"):
        read_manifest(folder)


def test_what_it_speaks_of_must_be_listed(folder: Path) -> None:
    files = json.loads((folder / FILENAME).read_bytes())["files"]
    change(folder, files=[entry for entry in files if entry["filename"] != "model.onnx"])
    with pytest.raises(ManifestError, match=r"files does not list model\.onnx"):
        read_manifest(folder)
    change(folder, files=[*files, files[0]])
    with pytest.raises(ManifestError, match="files lists a name twice"):
        read_manifest(folder)


def test_another_major_version_is_told_from_damage(folder: Path) -> None:
    change(folder, schema_version="2.0", files=None)
    with pytest.raises(ManifestError, match=r"schema version '2\.0'; this program reads 1\.x"):
        read_manifest(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000, '{"schema_version": "1.0"}', "\xff"])
def test_damage_is_an_error_with_a_reason(folder: Path, content: str) -> None:
    (folder / FILENAME).write_bytes(content.encode("latin-1"))
    with pytest.raises(ManifestError, match=r"^manifest\.json is no "):
        read_manifest(folder)


def test_a_missing_linked_or_huge_manifest_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MAX_BYTES", 100)
    with pytest.raises(ManifestError, match="at most 100 are read"):
        read_manifest(folder)
    (folder / FILENAME).rename(folder / "other.json")
    with pytest.raises(ManifestError, match=r"there is no manifest\.json in"):
        read_manifest(folder)
    (folder / FILENAME).symlink_to("other.json")
    with pytest.raises(ManifestError, match="is a link; wanted a plain file"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("local/cpu", "cpu"),
        ("local/cuda:1", "cuda:1"),
        ("agent/edge", "cpu"),
        ("agent/edge/cuda:0", "cuda:0"),
        ("agent/cuda", "cpu"),
        ("local/cuda:1 } x {", "cpu"),
    ],
)
def test_a_device_has_the_name_that_its_own_machine_calls_it(name: str, local: str) -> None:
    assert DeviceEntry(name=name, description="").local_name == local
