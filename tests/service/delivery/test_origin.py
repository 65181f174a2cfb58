from __future__ import annotations

import json
import tarfile
from pathlib import Path

import onnx
import pytest

from service.cli import modelfile
from service.delivery.origin import describe_source, labels_of_config, licence_of_card, of_folder, of_onnx
from service.pipeline.imported import onnx_file
from service.spec import Budget, JobSpec, ModelSource
from service.worker.messages import WorkOrder
from tests.service.delivery.made import write_model


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: mit\n---\n# A model", "mit"),
        ("---\r\nlanguage: en\r\nlicense: 'apache-2.0'  # see LICENSE\r\n---\r\n".replace("\r\n", "\n"), "apache-2.0"),
        ("---\nlicense:\n- mit\n- cc-by-4.0\ntags:\n- x\n---\n", "mit, cc-by-4.0"),
        ('---\nlicense: ["mit", bsd]\n---', "mit, bsd"),
        ("---\nlicense: other\nlicense_name: own-1.0\n---\n", "other: own-1.0"),
        ("---\nlicence: isc\n---\n", "isc"),
        ("---\nlicense: a\x1b[2Jb\n---\n", "a [2Jb"),
    ],
)
def test_the_licence_of_a_card_is_what_its_head_states(card: str, licence: str) -> None:
    found = licence_of_card(card)
    assert found is not None
    assert (found.name, found.stated_in) == (licence, "README.md")


@pytest.mark.parametrize(
    "card",
    [
        "",
        "license: mit",
        "---\ntags: x\n---\nlicense: mit",
        "---\nmy_license: mit\n---",
        "---\nlicense:\ntags:\n- x\n---",
    ],
)
def test_a_card_that_states_none_has_none(card: str) -> None:
    assert licence_of_card(card) is None


def test_classes_are_named_by_a_config_that_names_them_all() -> None:
    assert labels_of_config('{"id2label": {"1": "dog", "0": "cat"}}') == ("cat", "dog")


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        "{}",
        '{"id2label": {}}',
        '{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}',
        '{"id2label": {"0": "a", "2": "b"}}',
        '{"id2label": {"x": "a"}}',
        '{"id2label": ["a"]}',
    ],
)
def test_a_config_that_does_not_names_none(config: str) -> None:
    assert labels_of_config(config) is None


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog"}}))
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_folder_says_the_same_once_it_was_packed_and_sent(saved: Path, tmp_path: Path) -> None:
    modelfile.pack(saved, tmp_path / "sent.tar")
    with tarfile.open(tmp_path / "sent.tar") as tar:
        assert "README.md" in tar.getnames()
    for source in (saved, tmp_path / "sent.tar"):
        found = of_folder(source)
        assert found.licence is not None
        assert (found.licence.name, found.labels) == ("mit", ("cat", "dog"))


def test_what_is_no_archive_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"nothing")
    assert of_folder(tmp_path / "x.tar").licence is None


def test_an_onnx_file_states_its_licence_in_its_metadata(tmp_path: Path) -> None:
    path = write_model(tmp_path / "x.onnx")
    assert of_onnx(path).licence is None
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"author": "x", "License": " bsd-3-clause "})
    onnx.save(model, path)
    found = of_onnx(path).licence
    assert found is not None
    assert found.name == "bsd-3-clause"
    path.write_bytes(b"\xff")
    assert of_onnx(path).licence is None


def test_card_and_config_beside_an_onnx_file_are_sent_and_read(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").unlink()
    write_model(saved / "net.onnx")
    modelfile.pack(saved, tmp_path / "sent.tar")
    onnx_file(tmp_path / "sent.tar", tmp_path / "imported")
    found = of_onnx(tmp_path / "sent.tar", tmp_path / "imported")
    assert found.licence is not None
    assert (found.licence.name, found.labels) == ("mit", ("cat", "dog"))


@pytest.mark.parametrize(("field", "kind"), [("onnx_artifact", "onnx"), ("pt2_artifact", "pt2")])
def test_the_source_is_told_by_kind_and_name(tmp_path: Path, field: str, kind: str) -> None:
    order = WorkOrder(
        job="optimizationJobs/test",
        task="optimize",
        spec=JobSpec(model=ModelSource.model_validate({field: "artifacts/model"}), budget=Budget(fraction=0.5)),
        files={"artifacts/model": write_model(tmp_path / "my net.onnx")},
        folder=tmp_path,
        cache_folder=tmp_path,
        deadline_seconds=1,
    )
    source, labels = describe_source(order, "0" * 64)
    assert (source.kind, source.name, source.sha256, source.licence, labels) == (
        kind,
        "my net.onnx",
        "0" * 64,
        None,
        None,
    )
